"""Pack from parts to a committed dataset."""

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.typehints import typehints

from pipeline.ingest.records import ConservationError
from pipeline.pack import encode, ledger, transforms
from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.tokenize.tokenizer_file import TokenizerError
from pipeline.pack.verify.verify import verify
from pipeline.runtime.options import runner
from schemas.arrow import LEDGER, SHARDS
from schemas.dataset import open_dataset, open_newest
from schemas.manifest import CommitRefused, DatasetError, file_digest, read_files, read_manifest, read_shards
from tests import servers
from tests.pack.corpus import Corpus, Doc, recipe, some_documents, tree

BYTES = {"tokenizer": {"vocab_size": 257}}  # a token a byte: "a" is 65, end-of-text 0


@pytest.fixture
def corpus(tmp_path):
    """Four parts of three sources, in four groups."""
    corpus = Corpus(tmp_path / "in")
    corpus.add("books", some_documents("books", 30))
    corpus.add("web", some_documents("web", 40))
    corpus.add("web", some_documents("web2", 35))
    corpus.add("web/odd: *", some_documents("odd", 15))
    return corpus


def arrow(path):
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        return reader.read_all()


def test_a_tiny_corpus_gives_these_rows(tmp_path):
    corpus = Corpus(tmp_path / "in")
    documents = [
        Doc("one", "ab", url="http://a.test/", language="en"),
        Doc("two", None, rule="read.mime"),
        Doc("three", "mail me@x.test now", edits=((5, 9, 2),), language="de", words=3.0),
        Doc("four", "abc", rule="gopher.too_few_words"),
        Doc("five", "b", validation=True, language=None),
    ]
    corpus.add("web", documents)
    manifest = corpus.pack(recipe(**BYTES, shards={"sequence_lengths": [16]}), tmp_path / "ds")

    shards = read_shards(str(tmp_path / "ds"), manifest)
    assert shards.schema.equals(SHARDS)
    assert shards.drop_columns(["path", "bytes", "sha256"]).to_pylist() == [
        {
            "rows": 2,
            "tokens": 30,
            "text_bytes": 28,
            "source": "web",
            "tags": "{}",
            "split": "train",
            "longest_document": 27,
            "packed_rows": '{"16":2}',
            "generation": 1,
            "replaces": [],
            "retired_in": None,
        },
        {
            "rows": 1,
            "tokens": 2,
            "text_bytes": 1,
            "source": "web",
            "tags": "{}",
            "split": "validation",
            "longest_document": 2,
            "packed_rows": '{"16":1}',
            "generation": 1,
            "replaces": [],
            "retired_in": None,
        },
    ]
    train, validation = (arrow(tmp_path / "ds" / path) for path in shards["path"].to_pylist())
    assert train.schema.metadata == {
        b"source": b"web",
        b"split": b"train",
        b"tags": b"{}",
        b"tokenizer": manifest.tokenizer.sha256.encode(),
    }
    one, three, five = documents[0].doc_id, documents[2].doc_id, documents[4].doc_id
    masked = [SPACE if byte == 32 else byte - 32 for byte in b"mail email@example.com now"]
    assert train.to_pylist() == [
        {"doc_id": three, "tokens": [*masked, 0], "num_bytes": 26},
        {"doc_id": one, "tokens": [65, 66, 0], "num_bytes": 2},
    ]
    assert validation.to_pylist() == [{"doc_id": five, "tokens": [66, 0], "num_bytes": 1}]

    (path,) = open_dataset(str(tmp_path / "ds")).files("ledger")
    table = pq.read_table(path)
    assert table.schema.equals(LEDGER)
    blank = dict.fromkeys(LEDGER.names) | {"source": "web", "input": "web-0.warc", "offset": 0}
    hashes = [row["final_hash"] for row in table.to_pylist()]
    kept = {"kept": True, "cluster_size": 1, "edited_bytes": 0, "num_words": 2}
    dropped = {"kept": False, "value": 1.5, "threshold": 2.0}
    assert table.to_pylist() == [
        blank | kept | {"doc_id": one, "record_id": "urn:one", "url": "http://a.test/", "position": 0, "cluster": one,
         "language": "en", "num_bytes": 2, "final_hash": hashes[0], "num_tokens": 3, "shard": 0, "row": 1,
         "split": "train"},
        blank | dropped | {"doc_id": documents[1].doc_id, "record_id": "urn:two", "position": 100, "stage": "read",
         "rule": "read.mime"},
        blank | kept | {"doc_id": three, "record_id": "urn:three", "position": 200, "cluster": three, "language": "de",
         "num_words": 3, "num_bytes": 26, "edited_bytes": -8, "final_hash": hashes[2], "num_tokens": 27, "shard": 0,
         "row": 0, "split": "train"},
        blank | dropped | {"doc_id": documents[3].doc_id, "record_id": "urn:four", "position": 300, "stage": "rules",
         "rule": "gopher.too_few_words", "language": "en", "num_words": 2, "num_bytes": 3, "edited_bytes": 0,
         "final_hash": hashes[3]},
        blank | kept | {"doc_id": five, "record_id": "urn:five", "position": 400, "cluster": five, "num_bytes": 1,
         "final_hash": hashes[4], "num_tokens": 2, "shard": 1, "row": 0, "split": "validation"},
    ]  # fmt: skip
    index = {
        path.split("/index/")[1].rsplit("-", 1)[0]: arrow(path)
        for path in open_dataset(str(tmp_path / "ds")).files("index")
    }
    place = {"shard": 0, "row": 0, "token_start": 0, "num_tokens": 27, "ledger": 0, "ledger_row": 2}
    assert index["documents/all"].to_pylist() == sorted(
        [
            {"doc_id": one} | place | {"row": 1, "token_start": 27, "num_tokens": 3, "ledger_row": 0},
            {"doc_id": three} | place,
            {"doc_id": five} | place | {"shard": 1, "num_tokens": 2, "ledger_row": 4},
        ],
        key=lambda row: row["doc_id"],
    )
    assert [(row["ledger"], row["ledger_row"]) for row in index["urls/all"].to_pylist()] == [(0, 0)]
    assert index["near/g1-00000-web"].to_pylist() == [
        {"doc_id": doc.doc_id, "text_hash": hashes[row], "cluster": doc.doc_id, "split": split, "status": "kept",
         "signature": doc.doc_id if row == 2 else None}
        for row, doc, split in ((0, documents[0], "train"), (2, documents[2], "train"), (4, documents[4], "validation"))
    ]  # fmt: skip
    assert manifest.funnel.model_dump(exclude={"sources"}) == {
        "records_read": 5,
        "kept": 3,
        "dropped": {"gopher.too_few_words": 1, "read.mime": 1},
        "splits": {
            "train": {"documents": 2, "bytes": 28, "tokens": 30},
            "validation": {"documents": 1, "bytes": 1, "tokens": 2},
        },
        "unknown_tokens": 0,
    }


SPACE = 221  # the byte-level alphabet writes a space as U+0120, which sorts behind the printable bytes


def test_two_runs_give_equal_bytes_whatever_arrives_first(corpus, tmp_path):
    options = recipe(shards={"partition_by": ["language"]})
    corpus.pack(options, tmp_path / "one")
    shuffled = corpus.parts.copy()
    random.Random(2).shuffle(shuffled)
    # Every bundle twice, as after a lost worker, and the parts in another order.
    corpus.pack(
        options,
        tmp_path / "two",
        parts=shuffled,
        inputs=corpus.pieces[::-1],
        new_pipeline=lambda size: beam.Pipeline(runner=FnApiRunner(bundle_repeat=2)),
    )
    assert tree(tmp_path / "one", "work") == tree(tmp_path / "two", "work")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["processes", "flink"])
def test_other_workers_give_the_same_bytes(corpus, tmp_path, where):
    if where == "flink":
        servers.flink_jar()
    corpus.pack(recipe(), tmp_path / "one")
    other = runner(["--runner=FlinkRunner"] if where == "flink" else [], workers=2)
    corpus.pack(recipe(), tmp_path / "two", new_pipeline=other)
    assert tree(tmp_path / "one", "work") == tree(tmp_path / "two", "work")


def test_receipts_may_arrive_in_any_order(corpus, tmp_path, monkeypatch):
    def reversed_values(step):
        process = step.process
        monkeypatch.setattr(step, "process", lambda self, element: process(self, (element[0], list(element[1])[::-1])))

    for step in (transforms.MergeValidation, transforms.NumberShards, transforms.WriteIndex, transforms.WriteResult):
        reversed_values(step)
    corpus.pack(recipe(), tmp_path / "two")
    monkeypatch.undo()
    corpus.pack(recipe(), tmp_path / "one")
    assert tree(tmp_path / "one", "work") == tree(tmp_path / "two", "work")


def redecided(corpus):
    """Other thresholds: some documents leave, some come in, one group stays as it is."""
    for number in (1, 2, 3):
        changed = []
        for index, doc in enumerate(corpus.documents[number]):
            if doc.text is not None and index % 4 == 1:
                doc = dataclasses.replace(doc, rule=None if doc.rule else "fineweb.short_lines")
            changed.append(doc)
        corpus.decide(number, changed)


def test_copied_rows_give_the_bytes_of_encoded_ones(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    tokenizer = {"file": files_of(tmp_path / "ds", "tokenizer-")[0]}
    before = read_shards(str(tmp_path / "ds"), read_manifest(str(tmp_path / "ds")))
    redecided(corpus)
    # Another work folder: nothing is there but the dataset's own shards.
    manifest = corpus.pack(
        recipe(), tmp_path / "ds", work=tmp_path / "other", previous=open_newest(str(tmp_path / "ds"))
    )
    counts = [
        json.loads(path.read_bytes()) for path in sorted((tmp_path / "other" / "pack").glob("shards-*[0-9a-f].json"))
    ]
    assert sum(each["copied"] for each in counts) > 60
    assert 0 < sum(each["encoded"] for each in counts) < 30

    fresh = corpus.pack(recipe(tokenizer=tokenizer), tmp_path / "fresh")
    assert manifest.tokenizer.sha256 == fresh.tokenizer.sha256
    table, expected = read_shards(str(tmp_path / "ds"), manifest), read_shards(str(tmp_path / "fresh"), fresh)
    in_use = [row for row in table.to_pylist() if row["retired_in"] is None]
    assert sorted(row["sha256"] for row in in_use) == sorted(expected["sha256"].to_pylist())
    assert manifest.digests.order == fresh.digests.order
    # Old rows keep their numbers; those of the group that did not change are still in use.
    assert table["path"].to_pylist()[: len(before)] == before["path"].to_pylist()
    rows = [row for row in table.to_pylist() if row["source"] == "books"]
    assert all(row["retired_in"] is None and row["generation"] == 1 for row in rows)
    assert verify(str(tmp_path / "ds"))["faults"] == []
    assert verify(str(tmp_path / "ds"), 1)["faults"] == []


def test_a_text_that_ingest_now_reads_otherwise_is_encoded_anew(tmp_path):
    corpus = Corpus(tmp_path / "in")
    documents = [
        Doc("a", "aaaa"),
        Doc("b", "bbbb"),
        Doc("c", "cccc", validation=True),
        Doc("d", "dddd", validation=True),
    ]
    corpus.add("web", documents)
    corpus.pack(recipe(**BYTES), tmp_path / "ds")
    corpus.write(0, "web", [documents[0], Doc("b", "b b"), documents[2], Doc("d", "d d", validation=True)])
    dataset = str(tmp_path / "ds")
    manifest = corpus.pack(recipe(**BYTES), tmp_path / "ds", work=tmp_path / "w", previous=open_newest(dataset))
    (receipt,) = (tmp_path / "w" / "pack").glob("shards-*[0-9a-f].json")
    counts = json.loads(receipt.read_bytes())
    assert (counts["copied"], counts["encoded"]) == (2, 2)
    rows = [row for path in open_dataset(dataset).files("shards") for row in arrow(path).to_pylist()]
    assert {row["doc_id"]: row["tokens"] for row in rows} == {
        documents[0].doc_id: [65] * 4 + [0],
        documents[1].doc_id: [66, SPACE, 66, 0],
        documents[2].doc_id: [67] * 4 + [0],
        documents[3].doc_id: [68, SPACE, 68, 0],
    }
    assert manifest.parts[0].sha256 == corpus.parts[0].sha256
    assert verify(dataset)["faults"] == []


def files_of(folder, prefix):
    return [str(path) for path in sorted(folder.iterdir()) if path.name.startswith(prefix)]


def test_new_shards_replace_the_retired_ones_of_their_group_split_and_tags(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    redecided(corpus)
    manifest = corpus.pack(recipe(), tmp_path / "ds", previous=open_newest(str(tmp_path / "ds")))
    rows = read_shards(str(tmp_path / "ds"), manifest).to_pylist()
    added = [row for row in rows if row["generation"] == 2]
    assert added == sorted(added, key=lambda row: row["path"])
    for row in added:
        family = row["path"].split("-")[:3] if "-all-" in row["path"] else row["path"].split("-")[:2]
        retired = [
            number
            for number, old in enumerate(rows)
            if old["retired_in"] == 2
            and old["path"].split("-")[: len(family)] == family
            and (old["source"], old["split"]) == (row["source"], row["split"])
        ]
        assert row["replaces"] == retired
    assert any(row["replaces"] for row in added)


def test_nothing_changes_when_a_generation_is_decided_alike(corpus, tmp_path):
    first = corpus.pack(recipe(), tmp_path / "ds")
    second = corpus.pack(recipe(), tmp_path / "ds", previous=open_newest(str(tmp_path / "ds")))
    assert second.generation == 2
    assert second.digests.order == first.digests.order
    assert second.digests.previous == first.digests.generation
    one, two = (read_shards(str(tmp_path / "ds"), manifest) for manifest in (first, second))
    assert one.equals(two)
    assert read_files(str(tmp_path / "ds"), first)["path"] == read_files(str(tmp_path / "ds"), second)["path"]


def test_a_document_that_returns_gets_a_new_row_that_replaces_the_old_ones(tmp_path):
    corpus = Corpus(tmp_path / "in")
    documents = [Doc("a", "aaaa"), Doc("b", "bbbb")]
    corpus.add("web", documents)
    dataset = str(tmp_path / "ds")
    corpus.pack(recipe(**BYTES), tmp_path / "ds")
    corpus.decide(0, [documents[0], dataclasses.replace(documents[1], rule="x")])
    corpus.pack(recipe(**BYTES), tmp_path / "ds", previous=open_newest(dataset))
    corpus.decide(0, documents)
    manifest = corpus.pack(recipe(**BYTES), tmp_path / "ds", previous=open_newest(dataset))
    rows = read_shards(dataset, manifest).to_pylist()
    assert [(row["generation"], row["retired_in"], row["replaces"]) for row in rows] == [
        (1, 2, []),
        (2, 3, [0]),
        (3, None, [0, 1]),
    ]
    assert rows[2]["sha256"] == rows[0]["sha256"]
    assert verify(dataset)["faults"] == []


def test_new_parts_are_appended_and_old_groups_stay(corpus, tmp_path):
    dataset = str(tmp_path / "ds")
    first = corpus.pack(recipe(), tmp_path / "ds")
    old = tree(tmp_path / "ds", "work", "manifest.json")
    corpus.add("web", some_documents("later", 30))
    new, pieces = corpus.parts[4:], corpus.pieces[4:]
    second = corpus.pack(recipe(), tmp_path / "ds", previous=open_newest(dataset), parts=new, inputs=pieces)
    assert {name: data for name, data in tree(tmp_path / "ds", "work").items() if name in old} == old
    assert second.groups[:4] == first.groups
    assert [(part.generation, part.name) for part in second.parts[3:]] == [(1, "web/odd: *-3.warc"), (2, "web-4.warc")]
    assert second.funnel.records_read == first.funnel.records_read + 30
    shards = read_shards(dataset, second)
    assert shards["retired_in"].null_count == len(shards), "nothing is retired"
    documents = [path for path in open_dataset(dataset).files("index") if "/documents/" in path]
    assert sum(len(arrow(path)) for path in documents) == second.funnel.kept
    assert verify(dataset)["faults"] == []


def test_a_killed_run_continues_and_gives_the_same_bytes(corpus, tmp_path, monkeypatch):
    corpus.pack(recipe(), tmp_path / "whole")
    made = []

    def killed(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return write_ledger(*arguments)

    write_ledger = transforms.write_ledger
    monkeypatch.setattr(transforms, "write_ledger", killed)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        corpus.pack(recipe(), tmp_path / "ds")
    assert not (tmp_path / "ds" / "manifest.json").exists()
    monkeypatch.undo()

    def encoded_again(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "encode", encoded_again)
    monkeypatch.setattr(ledger, "_ledger_bytes", counted := Counted(ledger._ledger_bytes))
    corpus.pack(recipe(), tmp_path / "ds")
    assert counted.calls == 2, "two of four ledgers were there"
    assert tree(tmp_path / "ds", "work") == tree(tmp_path / "whole", "work")


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def test_a_receipt_whose_file_is_gone_is_not_believed(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    before = tree(tmp_path / "ds", "work")
    for folder in ("shards", "ledger", "index/near"):
        for path in list((tmp_path / "ds" / folder).iterdir())[::2]:
            path.unlink()
    corpus.pack(recipe(), tmp_path / "ds")
    assert tree(tmp_path / "ds", "work") == before


@pytest.mark.parametrize("name", ["shards-*-places.arrow", "shards-*-validation.arrow", "validation-*-places.arrow"])
def test_a_damaged_work_file_is_made_anew(corpus, tmp_path, name):
    corpus.pack(recipe(), tmp_path / "ds")
    before = tree(tmp_path / "ds", "work")
    work = tmp_path / "ds" / "work" / "pack"
    found = list(work.glob(name))
    assert found
    for path in found:
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 3, len(data) // 2):
            data[place] ^= 1
        path.write_bytes(data)
    for path in [*work.glob("ledger-*.json"), *(work.glob("validation-*.json") if "validation.arrow" in name else ())]:
        path.unlink()
    corpus.pack(recipe(), tmp_path / "ds")
    assert tree(tmp_path / "ds", "work") == before


def test_verdicts_other_than_those_decided_are_refused(corpus, tmp_path):
    sums = {part.number: file_digest(Path(corpus.verdict_uri(part)).read_bytes()) for part in corpus.parts}
    corpus.pack(recipe(), tmp_path / "ds", verdicts=sums)
    sums[1] = sums[0]
    with pytest.raises(Exception, match=r"verdict-1\.arrow: it is damaged, .*: delete .* and run again"):
        corpus.pack(recipe(), tmp_path / "other", verdicts=sums)
    assert not (tmp_path / "other" / "manifest" / "g1.json").exists()


def test_a_damaged_file_in_the_way_is_named(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    (path, *_) = sorted((tmp_path / "ds" / "shards").iterdir())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Exception, match=rf"{path.name}: holds sha256 .* delete it and run again"):
        corpus.pack(recipe(), tmp_path / "ds")


def test_a_second_driver_is_told_so(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    redecided(corpus)
    with pytest.raises(CommitRefused, match="another run committed generation 1 first"):
        corpus.pack(recipe(), tmp_path / "ds")
    assert verify(str(tmp_path / "ds"))["faults"] == []


def test_records_that_are_not_in_the_ledger_break_the_run(corpus, tmp_path):
    source, piece = corpus.pieces[0]
    corpus.pieces[0] = (source, dataclasses.replace(piece, rows=31))
    with pytest.raises(ConservationError, match="source books: 31 records were read, the ledger has 30"):
        corpus.pack(recipe(), tmp_path / "ds")
    assert not (tmp_path / "ds" / "manifest").joinpath("g1.json").exists()


def test_an_input_that_changed_under_its_name_is_refused(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    previous = open_newest(str(tmp_path / "ds"))
    source, piece = corpus.pieces[0]
    corpus.pieces[0] = (source, dataclasses.replace(piece, sha256="0" * 64))
    with pytest.raises(DatasetError, match=r"books-0\.warc from 0 on has sha256 0000.*give the new file a new name"):
        corpus.pack(recipe(), tmp_path / "ds", previous=previous)


def test_another_tokenizer_is_another_dataset(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "ds")
    previous = open_newest(str(tmp_path / "ds"))
    with pytest.raises(TokenizerError, match=r"another tokenizer \(vocab_size differ\).*give another output"):
        corpus.pack(recipe(tokenizer={"vocab_size": 299}), tmp_path / "ds", previous=previous)


def test_a_kept_row_without_a_split_is_refused(tmp_path):
    corpus = Corpus(tmp_path / "in")
    corpus.add("web", [Doc("a", "aaaa")])
    path = tmp_path / "in" / "verdict-0.arrow"
    table = arrow(path)
    column = pa.array([None], pa.string())
    table = table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), column)
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(Exception, match=r"row 0 of a part is kept with split None: expected train or validation"):
        corpus.pack(recipe(), tmp_path / "ds")


def test_validation_shards_are_few_and_hold_the_documents_of_all_groups(corpus, tmp_path):
    manifest = corpus.pack(recipe(shards={"shard_bytes": 1 << 20}), tmp_path / "ds")
    rows = [row for row in read_shards(str(tmp_path / "ds"), manifest).to_pylist() if row["split"] == "validation"]
    assert [row["path"].rsplit("-", 2)[0] for row in rows] == [
        "shards/g1-all-books-validation",
        "shards/g1-all-web-validation",
        f"shards/g1-all-web_odd___.{hashlib.sha256(b'web/odd: *').hexdigest()[:8]}-validation",
    ]
    kept = [doc for part in corpus.documents[1:3] for doc in part if doc.rule is None and doc.validation]
    assert rows[1]["rows"] == len(kept) > 10


def test_a_shard_has_one_combination_of_tags(tmp_path):
    corpus = Corpus(tmp_path / "in")
    corpus.add(
        "web", [Doc(f"d{n}", "text " * n, language=("en", "de", None)[n % 3], validation=n > 8) for n in range(12)]
    )
    manifest = corpus.pack(recipe(shards={"partition_by": ["language"]}), tmp_path / "ds")
    rows = read_shards(str(tmp_path / "ds"), manifest).to_pylist()
    tags = ['{"language":"de"}', '{"language":"en"}', '{"language":null}']
    assert [(row["split"], row["tags"], row["rows"]) for row in rows] == [
        *(("train", tag, 3) for tag in tags),
        *(("validation", tag, 1) for tag in tags),
    ]
    assert verify(str(tmp_path / "ds"))["faults"] == []


def test_no_element_of_unknown_type_crosses_a_shuffle():
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | beam.Create([0]) | transforms.PackGroups("nowhere")
    grouped = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, node):
            self.visit_transform(node)

        def visit_transform(self, node):
            if isinstance(node.transform, beam.GroupByKey):
                grouped.append((node.full_label, node.inputs[0].element_type))

    pipeline.visit(Visitor())
    labels = {label.split("/")[-1] for label, _ in grouped}
    assert {"GatherSources", "GatherShards", "GatherIndex", "GatherReceipts"} <= labels
    ours = [(label, kind) for label, kind in grouped if "Gather" in label]
    for label, kind in ours:
        assert isinstance(kind, typehints.TupleHint.TupleConstraint), (label, kind)
        assert "Any" not in repr(kind), (label, kind)


def test_the_stage_version_names_the_libraries_that_shape_shards():
    assert encode.stage_version() == f"2; tokenizers {_version('tokenizers')}; pyarrow {pa.__version__}"


def _version(name):
    from importlib.metadata import version

    return version(name)
