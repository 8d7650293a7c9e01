"""The same decision, byte for byte, wherever its pipeline runs and its parts lie."""

from pathlib import Path

import pytest

from pipeline.runtime.options import runner
from pipeline.select.select import decision_digest, select
from schemas import storage
from tests.made_parts import make_recipe, write_part
from tests.select.test_select import corpus
from tests.servers import flink_jar, free_port, serve, tool

RECIPE = make_recipe(near={"threshold": 0.6}, split={"validation": 0.3})
EXACT = make_recipe(near={"threshold": 0.6, "verify": "exact"}, split={"validation": 0.3})


def three_parts(folder):
    """A corpus with repeated records, near and exact copies."""
    rows = [{"text": text, "record_id": f"t{n % 110}"} for n, text in enumerate(corpus())]
    return [write_part(folder, n, rows[n::3]) for n in range(3)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The funnel, with the digests of all verdict files, of one process."""
    folder = tmp_path_factory.mktemp("expected")
    funnel = decide(three_parts(folder), folder)
    assert all(funnel.dropped[rule] > 2 for rule in ("exact.duplicate", "near.duplicate"))
    assert funnel.renamed > 2
    return funnel


def decide(parts, work, new_pipeline=None, recipe=RECIPE):
    return select(parts, recipe, str(work), decision_digest(parts, recipe), new_pipeline)


@pytest.mark.slow
def test_two_processes(tmp_path, expected, monkeypatch):
    monkeypatch.setattr("pipeline.select.select.IN_PROCESS_ROWS", 0)
    assert decide(three_parts(tmp_path), tmp_path, runner(workers=2)) == expected


@pytest.mark.slow
def test_prism(tmp_path, expected):
    port = free_port()
    command = [tool("prism"), f"--job_port={port}", f"--web_port={free_port()}", "--serve_http=false"]
    with serve(command, port, tmp_path / "log"):
        new_pipeline = runner(["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"])
        assert decide(three_parts(tmp_path), tmp_path, new_pipeline) == expected


@pytest.mark.slow
def test_flink_in_one_java_process(tmp_path, expected):
    flink_jar()
    parts = three_parts(tmp_path)
    assert decide(parts, tmp_path, runner(["--runner=FlinkRunner"], workers=2)) == expected


@pytest.mark.parametrize("recipe", [RECIPE, EXACT])
def test_parts_and_work_in_a_bucket(tmp_path, s3, recipe):
    bucket = s3("decisions")
    local = three_parts(tmp_path)
    moved = []
    for part in local:
        uri = storage.join(bucket, "parts", Path(part.uri).name)
        storage.write(uri, Path(part.uri))
        moved.append(type(part)(part.number, part.source, uri, part.rows, part.text_bytes, part.sha256))
    assert decide(moved, bucket, recipe=recipe) == decide(local, tmp_path, recipe=recipe)
