"""`verify` finds what is wrong and names the file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.pack.verify.verify import verify, verify_lines
from schemas.arrow import FILES, SHARDS
from schemas.dataset import open_dataset
from schemas.generation import FileRef
from schemas.manifest import commit, file_digest, read_files, read_manifest, read_shards
from tests.pack.corpus import Corpus, recipe, some_documents


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    corpus = Corpus(folder / "in")
    corpus.add("books", some_documents("books", 30))
    corpus.add("web", some_documents("web", 40))
    corpus.pack(recipe(shards={"sequence_lengths": [64]}), folder / "ds")
    return folder / "ds"


@pytest.fixture
def dataset(packed, tmp_path):
    """A copy to damage."""
    for path in packed.rglob("*"):
        if path.is_file() and "work" not in path.parts:
            copy = tmp_path / "ds" / path.relative_to(packed)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "ds"


def faults(dataset):
    return [(each["file"], each["fault"]) for each in verify(str(dataset))["faults"]]


def test_a_whole_dataset_has_no_fault(dataset):
    result = verify(str(dataset))
    manifest = read_manifest(str(dataset))
    assert result == {
        "generation": 1,
        "digest": manifest.digests.generation,
        "order": manifest.digests.order,
        "records_read": 70,
        "kept": 56,
        "dropped": {"gopher.too_few_words": 4, "near.duplicate": 5, "read.mime": 5},
        "shards": len(read_shards(str(dataset), manifest)),
        "tokens": sum(read_shards(str(dataset), manifest)["tokens"].to_pylist()),
        "faults": [],
    }
    lines = verify_lines(result)
    assert lines[2].startswith("70 records read, 56 kept; ")
    assert lines[-1] == "everything agrees"


@pytest.mark.parametrize(("place", "said"), [("ledger/*", " shards, "), ("manifest/g1-shards-*", None)])
def test_what_could_not_be_counted_is_not_told(dataset, place, said):
    path = sorted(dataset.glob(place))[0]
    path.write_bytes(path.read_bytes()[:-1])
    result = verify(str(dataset))
    assert [result[name] for name in ("records_read", "kept", "dropped")] == [None] * 3
    assert (result["shards"] is None) == (said is None)
    _, _, *lines, fault, end = verify_lines(result)
    assert "records" not in "".join(lines)
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]
    assert fault.startswith("FAULT ")
    assert end == "1 fault"


@pytest.mark.parametrize("kind", ["shards", "ledger", "index"])
def test_a_changed_byte_is_found_in_every_file(dataset, kind):
    for uri in open_dataset(str(dataset)).files(kind):
        path = dataset / uri.removeprefix(f"{dataset}/")
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        name = str(path.relative_to(dataset))
        found = faults(dataset)
        assert [file for file, _ in found] == [name]
        assert f"sha256 is {file_digest(path.read_bytes())}, the generation lists {file_digest(data)}" in found[0][1]
        path.write_bytes(data)


@pytest.mark.parametrize(
    "place", ["shards/*", "ledger/*", "index/documents/*", "index/near/*", "tokenizer-*", "recipe-*"]
)
def test_a_missing_file_is_named(dataset, place):
    path = sorted(dataset.glob(place))[0]
    path.unlink()
    assert (str(path.relative_to(dataset)), "missing") in faults(dataset)


@pytest.mark.parametrize("kind", ["shards", "files", "inputs"])
def test_a_damaged_table_is_named(dataset, kind):
    (path,) = (dataset / "manifest").glob(f"g1-{kind}-*")
    path.write_bytes(path.read_bytes()[:-1])
    ((file, fault),) = faults(dataset)
    assert file == "manifest"
    assert f"{path.relative_to(dataset)} has sha256" in fault


# ---------------------------------------------------------------- files that say the wrong thing under a right digest


def forge(dataset, change):
    """Change shards, ledgers or tables and make all digests agree again, as a defect of ours would."""
    manifest = read_manifest(str(dataset))
    shards, listed = read_shards(str(dataset), manifest).to_pylist(), read_files(str(dataset), manifest).to_pylist()
    change(shards, listed, manifest)
    for row in [*shards, *listed]:
        data = (dataset / row["path"]).read_bytes()
        row["bytes"], row["sha256"] = len(data), file_digest(data)
    fields = manifest.model_dump()
    tables = manifest.tables
    with pa.ipc.new_file(str(dataset / tables.shards.path), SHARDS) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(shards, schema=SHARDS))
    pq.write_table(pa.Table.from_pylist(listed, FILES), dataset / tables.files.path)
    for name in ("shards", "files"):
        path = getattr(tables, name).path
        data = (dataset / path).read_bytes()
        fields["tables"][name] = FileRef(path=path, bytes=len(data), sha256=file_digest(data)).model_dump()
    (dataset / "manifest" / "g1.json").unlink()
    commit(str(dataset), 1, type(manifest)(**fields).to_json())


def rewrite(path, change):
    """Change the rows of an Arrow file."""
    with pa.ipc.open_file(pa.BufferReader(path.read_bytes())) as reader:
        rows, schema = reader.read_all().to_pylist(), reader.schema
    change(rows)
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def one_shard(shards):
    return next(row["path"] for row in shards if row["rows"] > 2)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: rows[1]["tokens"].__setitem__(0, 60_000), "token 60000 is beyond the vocabulary of 300"),
        (lambda rows: rows[1]["tokens"].append(7), "1 document without end-of-text (0) at the end"),
        (lambda rows: rows.reverse(), "row 0: doc_id is not what the ledger says"),
        (lambda rows: rows.pop(), "but the ledger points to"),
        (lambda rows: rows[1].update(num_bytes=1), "row 1: num_bytes is not what the ledger says (1 row)"),
        (lambda rows: rows[1]["tokens"].insert(0, 9), "row 1: num_tokens is not what the ledger says (1 row)"),
    ],
)
def test_a_shard_that_disagrees_with_its_ledger_is_named(dataset, change, fault):
    paths = []

    def forged(shards, listed, manifest):
        paths.append(one_shard(shards))
        rewrite(dataset / paths[0], change)

    forge(dataset, forged)
    assert any(file == paths[0] and fault in text for file, text in faults(dataset)), faults(dataset)


def test_a_shard_of_another_source_is_named(dataset):
    paths = []

    def forged(shards, listed, manifest):
        row = next(row for row in shards if row["source"] == "web" and row["split"] == "train")
        paths.append(row["path"])
        with pa.ipc.open_file(pa.BufferReader((dataset / row["path"]).read_bytes())) as reader:
            table = reader.read_all()
        table = table.replace_schema_metadata({**table.schema.metadata, b"source": b"books"})
        with pa.ipc.new_file(str(dataset / row["path"]), table.schema) as writer:
            writer.write_table(table)

    forge(dataset, forged)
    assert any(file == paths[0] and text.startswith("schema or metadata differ") for file, text in faults(dataset))


def test_a_wrong_count_in_the_shards_table_is_named(dataset):
    forge(dataset, lambda shards, listed, manifest: shards[0].update(tokens=1, packed_rows='{"64":1}'))
    found = [text for _, text in faults(dataset)]
    assert any(text.startswith("number of tokens is ") for text in found)
    assert any(text.startswith("number of packed_rows is ") for text in found)


def test_an_index_with_other_rows_is_named(dataset):
    paths = []

    def forged(shards, listed, manifest):
        paths.append(next(row["path"] for row in listed if "/documents/" in row["path"]))
        rewrite(dataset / paths[0], lambda rows: rows[3].update(token_start=rows[3]["token_start"] + 1))

    forge(dataset, forged)
    assert (paths[0], "its rows are not those of the ledgers and shards") in faults(dataset)


def test_an_index_that_is_not_sorted_is_named(dataset):
    paths = []

    def forged(shards, listed, manifest):
        paths.append(next(row["path"] for row in listed if "/urls/" in row["path"]))
        rewrite(dataset / paths[0], lambda rows: rows.reverse())

    forge(dataset, forged)
    assert (paths[0], "its rows are not sorted") in faults(dataset)


def test_a_near_index_without_a_kept_document_is_named(dataset):
    paths = []

    def forged(shards, listed, manifest):
        paths.append(next(row["path"] for row in listed if "/near/" in row["path"]))
        rewrite(dataset / paths[0], lambda rows: rows.pop(0))

    forge(dataset, forged)
    assert any(file == paths[0] and "is not what the ledger keeps" in text for file, text in faults(dataset))


def test_a_ledger_that_drops_without_a_rule_or_points_astray_is_named(dataset):
    paths = []

    def forged(shards, listed, manifest):
        paths.append(listed[0]["path"])
        table = pq.read_table(dataset / paths[0])
        rows = table.to_pylist()
        kept = [row for row in rows if row["kept"]]
        kept[0]["shard"] = 10_000
        next(row for row in rows if not row["kept"])["rule"] = None
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), dataset / paths[0])

    forge(dataset, forged)
    found = [text for file, text in faults(dataset) if file == paths[0]]
    assert any("rows kept with a rule, or dropped without is 1, expected 0" in text for text in found)
    assert any("points to shard 10000, which is not one of its group" in text for text in found)


def test_a_manifest_that_counts_or_digests_otherwise_is_named(dataset):
    place = dataset / "manifest" / "g1.json"
    data = json.loads(place.read_bytes())
    data["funnel"]["kept"] -= 1
    data["digests"] |= {"order": "0" * 64, "generation": "1" * 64, "recipe": "2" * 64}
    place.write_text(json.dumps(data))
    found = dict(faults(dataset))
    texts = [text for file, text in faults(dataset) if file == "manifest/g1.json"]
    assert any(text == "funnel: kept is 55, expected 56" for text in texts)
    assert any(text.startswith("order digest is 000") for text in texts)
    assert any(text.startswith("generation digest is 111") for text in texts)
    assert any(file.startswith("recipe-") for file in found)


def test_a_lost_input_breaks_conservation(dataset):
    (path,) = (dataset / "manifest").glob("g1-inputs-*")
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    data = path.read_bytes()
    place = dataset / "manifest" / "g1.json"
    manifest = json.loads(place.read_bytes())
    manifest["tables"]["inputs"] |= {"bytes": len(data), "sha256": file_digest(data)}
    place.write_text(json.dumps(manifest))
    assert (str(path.relative_to(dataset)), "rows of source books is 0, expected 30") in faults(dataset)
