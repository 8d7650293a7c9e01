"""The dataset library: what it gives of a packed dataset, what it refuses, and what a look-up reads."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from schemas.arrow import INDEX_DOCUMENTS, INDEX_URLS, LEDGER
from schemas.dataset import Dataset, DatasetError, Place, open_dataset, open_newest
from schemas.dataset.index import _batches_with, find_keys
from tests.made_dataset import made
from tests.pack.corpus import Corpus, Doc, final_text, recipe, some_documents
from tests.servers import web_server

README = """
import datasets
import duckdb
from pyarrow.compute import field
from schemas.dataset import open_dataset

data = open_dataset("data")                          # a folder, s3://, gs://, az:// or https://; the newest generation
data.shards(split="train").select(["path", "source", "tokens"])          # an Arrow table, one row a shard
data.find("http://web.test/12")                      # by URL, doc_id or record id: kept or dropped, why, where
ledger = data.ledger(["url", "rule", "value"], where=field("stage") == "rules")  # every record read has a row
duckdb.sql("select rule, count(*), avg(value) from ledger group by rule").show()
for batch in data.documents(split="train"):          # doc_id and tokens; data.texts() gives doc_id and text
    batch["tokens"].flatten().to_numpy()
splits = {split: data.files("shards", split) for split in ("train", "validation")}
shards = datasets.load_dataset("arrow", data_files=splits, streaming=True)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("library") / "in")
    corpus.add("web", some_documents("web", 40))
    corpus.add(
        "books", [Doc("twice-1", "one text", url="http://twice/"), Doc("twice-2", "another", url="http://twice/")]
    )
    corpus.pack(recipe(), corpus.folder.parent / "data")
    return corpus


@pytest.fixture
def dataset(corpus: Corpus) -> Dataset:
    return open_dataset(str(corpus.folder.parent / "data"))


def kept(corpus: Corpus, split: str | None = None) -> dict[bytes, Doc]:
    documents = [doc for part in corpus.documents for doc in part if doc.rule is None]
    return {doc.doc_id: doc for doc in documents if split in (None, "validation" if doc.validation else "train")}


def test_the_lines_of_the_readme_run(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(corpus.folder.parent)
    names: dict[str, Any] = {}
    exec(README, names)
    ids = {split: {row["doc_id"] for row in names["shards"][split]} for split in ("train", "validation")}
    assert ids == {split: set(kept(corpus, split)) for split in ids}


def test_shards_in_use_are_given_with_their_numbers(dataset: Dataset) -> None:
    table = dataset.shards()
    assert table["path"].to_pylist() == [dataset.shard_table["path"][n].as_py() for n in table["number"].to_pylist()]
    by_split = [dataset.shards(split) for split in ("train", "validation")]
    assert [set(each["split"].to_pylist()) for each in by_split] == [{"train"}, {"validation"}]
    assert sum(map(len, by_split)) == len(table)


def test_shards_that_a_later_generation_retired_are_not_given(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100, 90]})
    data.add("web", [[1, 0]], replaces=[0])
    data.commit()
    assert [open_dataset(data.uri, number).shards()["number"].to_pylist() for number in (1, 2)] == [[0, 1], [1, 2]]
    assert len(open_dataset(data.uri).shard_table) == 3
    assert [Path(path) for path in open_dataset(data.uri).files("shards")] == [data.path(1), data.path(2)]


@pytest.mark.parametrize("split", [None, "train", "validation"])
def test_documents_and_texts_are_those_that_were_kept(corpus: Corpus, dataset: Dataset, split: str | None) -> None:
    documents = dataset.documents(split, ["doc_id", "tokens", "num_bytes"]).read_all()
    texts = dataset.texts(split).read_all()
    expected = {doc_id: final_text(doc) for doc_id, doc in kept(corpus, split).items()}
    assert dict(zip(texts["doc_id"].to_pylist(), texts["text"].to_pylist(), strict=True)) == expected
    assert documents["doc_id"].to_pylist() == texts["doc_id"].to_pylist()
    assert documents["num_bytes"].to_pylist() == [len(text.encode()) for text in texts["text"].to_pylist()]
    assert {tokens[-1] for tokens in documents["tokens"].to_pylist()} == {dataset.manifest.tokenizer.end_of_text.id}


def test_the_ledger_has_every_record_and_gives_the_rows_that_are_asked_for(corpus: Corpus, dataset: Dataset) -> None:
    whole = dataset.ledger().read_all()
    assert whole.schema == LEDGER
    documents = [doc for part in corpus.documents for doc in part]
    assert sorted(whole["doc_id"].to_pylist()) == sorted(doc.doc_id for doc in documents)
    # A condition may be over a column that is not given, and columns come in the order in which they are named.
    dropped = dataset.ledger(["rule", "doc_id"], where=~pc.field("kept")).read_all()
    assert dropped.column_names == ["rule", "doc_id"]
    assert dict(zip(dropped["doc_id"].to_pylist(), dropped["rule"].to_pylist(), strict=True)) == {
        doc.doc_id: doc.rule for doc in documents if doc.rule is not None
    }
    assert dataset.ledger(["doc_id"], where=pc.field("rule") == "no such rule").read_all().num_rows == 0


def test_columns_that_there_are_not_are_refused_by_name(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="'text' is not one of doc_id, tokens, num_bytes"):
        dataset.documents(columns=["text"])
    with pytest.raises(ValueError, match="'rules' is not a column of the ledger: doc_id, record_id, url"):
        dataset.ledger(["rules"])
    with pytest.raises(ValueError, match="'tokens': a kind of files is shards, ledger or index"):
        dataset.files("tokens")


def test_a_document_is_found_by_url_id_and_record_id(corpus: Corpus, dataset: Dataset) -> None:
    documents = {doc.name: doc for part in corpus.documents for doc in part}
    one, dropped, unread = documents["web-1"], documents["web-3"], documents["web-5"]
    assert (one.rule, dropped.rule, unread.url) == (None, "gopher.too_few_words", None)
    for name in (one.url, one.doc_id.hex(), one.doc_id.hex().upper(), "urn:web-1", "<urn:web-1>"):
        assert dataset.find(str(name))["doc_id"].to_pylist() == [one.doc_id]
    for name in (dropped.url, dropped.doc_id.hex(), "urn:web-3"):
        assert dataset.find(str(name)).select(["doc_id", "rule"]).to_pylist() == [
            {"doc_id": dropped.doc_id, "rule": "gopher.too_few_words"}
        ]
    assert dataset.find("urn:web-5")["rule"].to_pylist() == ["read.mime"]
    assert sorted(dataset.find("http://twice/")["record_id"].to_pylist()) == ["urn:twice-1", "urn:twice-2"]
    nothing = dataset.find("http://web.test/none")
    assert (len(nothing), nothing.schema) == (0, LEDGER)


def test_an_entry_of_the_index_leads_to_the_document_in_its_shard(corpus: Corpus, dataset: Dataset) -> None:
    ids = sorted(kept(corpus))
    entries = dataset.entries(ids)
    assert sorted(key.doc_id for key in entries) == ids
    for key, entry in entries.items():
        shard = dataset.shard_file(key.shard)
        assert shard.doc_ids()[key.row].tobytes() == key.doc_id
        assert shard.tokens_of(np.array([key.row]))[0].size == entry["num_tokens"] == shard.num_tokens()[key.row]
        row = dataset.rows([Place(entry["ledger"], entry["ledger_row"])], ["doc_id", "shard", "row"])
        assert list(row.values()) == [key._asdict()]


def test_a_dataset_on_a_web_server_gives_the_same(corpus: Corpus, dataset: Dataset) -> None:
    with web_server(Path(dataset.uri)) as uri:
        remote = open_dataset(uri)
        for read in (
            lambda each: each.documents("train", ["doc_id", "tokens", "num_bytes"]),
            lambda each: each.texts("validation"),
            lambda each: each.ledger(),
            lambda each: each.ledger(["url"], pc.field("kept")),
        ):
            assert read(remote).read_all().equals(read(dataset).read_all())
        for name in ("http://twice/", "urn:web-3", corpus.documents[0][0].doc_id.hex()):
            assert remote.find(name).equals(dataset.find(name))
        assert remote.files("index") == [f"{uri}/{path}" for path in dataset.paths if path.startswith("index/")]


def copied(dataset: Dataset, folder: Path, kind: str, damage: Any) -> Dataset:
    """A copy of a dataset in which every file of one kind is damaged."""
    subprocess.run(["cp", "-r", dataset.uri, str(folder)], check=True)
    copy = open_dataset(str(folder))
    for path in copy.files(kind):
        damage(Path(path))
    return open_dataset(str(folder))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_read_whole_is_held_against_its_digest(dataset: Dataset, tmp_path: Path) -> None:
    shards = copied(dataset, tmp_path / "a", "shards", flip)
    for reader in (shards.documents(), shards.texts()):
        with pytest.raises(DatasetError, match=r"shards/.*\.arrow: its sha256 is .*, the manifest says"):
            reader.read_all()
    ledger = copied(dataset, tmp_path / "b", "ledger", flip)
    for where in (None, pc.field("kept")):
        with pytest.raises(DatasetError, match=r"ledger/.*\.parquet: its sha256 is .*, the manifest says"):
            ledger.ledger(["url"], where).read_all()
    with pytest.raises(DatasetError, match=r"index/documents/.*: its sha256 is"):
        copied(dataset, tmp_path / "c", "index", flip).kept_documents("")


def test_what_is_missing_is_named(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"shards/.* is missing \(pruned, or not copied\): copy it again"):
        copied(dataset, tmp_path / "a", "shards", Path.unlink).documents().read_all()
    with pytest.raises(DatasetError, match=r"ledger/.*: No such file or directory: copy it again"):
        copied(dataset, tmp_path / "b", "ledger", Path.unlink).ledger().read_all()
    with pytest.raises(DatasetError, match=r"index/urls/.* is missing; the dataset is not complete"):
        copied(dataset, tmp_path / "c", "index", Path.unlink).find("http://web.test/1")
    with pytest.raises(DatasetError, match="no dataset there"):
        open_dataset(str(tmp_path / "nowhere"))
    assert open_newest(str(tmp_path / "nowhere")) is None


def test_a_shard_that_is_not_one_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    from schemas.dataset import map_shard, parse_shard

    table = tmp_path / "table.arrow"
    with pa.ipc.new_file(str(table), pa.schema([("doc_id", pa.binary(16))])):
        pass
    with pytest.raises(DatasetError, match=r"table.arrow: not a shard: it has no column tokens"):
        map_shard(str(table))
    with pytest.raises(DatasetError, match="here: not a shard"):
        parse_shard(pa.py_buffer(b"<html>404 Not Found</html>"), "here")


# ---------------------------------------------------------------- look-ups


def test_a_look_up_reads_few_of_the_record_batches() -> None:
    rows = np.arange(0, 64_000, 2, np.uint64)
    batches = [
        pa.record_batch([pa.array(rows[start : start + 100]), *[pa.array(np.zeros(100, np.uint32))] * 2], INDEX_URLS)
        for start in range(0, len(rows), 100)
    ]
    read: list[int] = []

    class Reader:
        num_record_batches = len(batches)

        def get_batch(self, number: int) -> pa.RecordBatch:
            read.append(number)
            return batches[number]

    found = _batches_with(Reader(), [20_000])  # type: ignore[arg-type]
    assert found == [100]
    assert len(read) <= 11  # of 320


@given(
    st.lists(st.integers(0, 30), max_size=40).map(sorted), st.integers(1, 7), st.lists(st.integers(0, 31), max_size=6)
)
def test_look_ups_find_what_reading_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, stored: list[int], batch_rows: int, keys: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    entries = [{"url_hash": key, "ledger": 0, "ledger_row": row} for row, key in enumerate(stored)]
    with pa.ipc.new_file(str(folder / "all.arrow"), INDEX_URLS) as writer:
        for start in range(0, len(entries), batch_rows):
            writer.write_batch(pa.RecordBatch.from_pylist(entries[start : start + batch_rows], INDEX_URLS))
    found = find_keys(str(folder), {"": "all.arrow"}, "urls", keys).to_pylist()
    assert found == [entry for entry in entries if entry["url_hash"] in keys]


def write_index(folder: Path, digits: str, ids: list[int]) -> str:
    """A file of index/documents with keys in one file, whose ids are given by their first byte."""
    rows = [
        dict.fromkeys(INDEX_DOCUMENTS.names, 0) | {"doc_id": bytes([name]) + bytes(15), "num_tokens": name}
        for name in ids
    ]
    path = f"index/documents/{digits}-0.arrow"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(folder / path), INDEX_DOCUMENTS) as writer:
        writer.write_table(pa.Table.from_pylist(rows, INDEX_DOCUMENTS))
    return path


def test_an_index_of_several_files_and_one_of_a_single_file_give_the_same_documents(
    dataset: Dataset, tmp_path: Path
) -> None:
    from schemas.generation import FileRef
    from schemas.local_files import sha256_of

    ids = [0x01, 0x02, 0x1F, 0xF0]
    kinds = {}
    for name, files in (("one", {"all": ids}), ("many", {"0": ids[:2], "1": ids[2:3], "f": ids[3:]})):
        paths = [write_index(tmp_path, digits, inside) for digits, inside in files.items()]
        refs = [FileRef(path=path, bytes=0, sha256=sha256_of(tmp_path / path)) for path in paths]
        kinds[name] = Dataset(str(tmp_path), dataset.manifest)
        kinds[name].__dict__["file_refs"] = refs
    assert [kinds[name].index_digits() for name in ("one", "many")] == [0, 1]
    for digits, expected in (("0", [1, 2]), ("1", [0x1F]), ("7", []), ("f", [0xF0]), ("f0", [0xF0]), ("01", [1])):
        for opened in kinds.values():
            assert opened.kept_documents(digits)["num_tokens"].tolist() == expected
    assert kinds["one"].kept_documents("")["num_tokens"].tolist() == ids
    assert kinds["one"].kept_documents("")["high"][3] == np.uint64(0xF0 << 56)
    assert kinds["many"].places_of_id(bytes([0x1F]) + bytes(15)) == [Place(0, 0)]
    assert kinds["many"].places_of_id(bytes(16)) == []


# ---------------------------------------------------------------- around it


def test_the_library_needs_neither_half() -> None:
    code = (
        "import sys, schemas.dataset\n"
        "heavy = {'apache_beam', 'torch', 'pandas', 'numba', 'pipeline', 'trainer'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_command_lists_the_shards_of_one_split(
    dataset: Dataset, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["files", dataset.uri, "shards", "--split", split]) == 0
    assert capsys.readouterr().out.split() == dataset.files("shards", split)
    assert all(f"-{split}-" in path for path in dataset.files("shards", split))
