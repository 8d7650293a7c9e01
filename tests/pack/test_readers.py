"""Other programs read the dataset: datasets, DuckDB, pandas, a memory map."""

import json

import duckdb
import pandas
import pyarrow as pa
import pytest

from pipeline.pack.index import index_digits, partition
from schemas.dataset import open_dataset
from schemas.manifest import read_manifest, read_shards
from schemas.recipe_file import load_recipe
from tests.pack.corpus import Corpus, Doc, final_text, recipe, some_documents


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    corpus = Corpus(tmp_path_factory.mktemp("readers") / "in")
    corpus.add("books", some_documents("books", 30))
    corpus.add("web/odd: *", some_documents("odd", 40))
    corpus.pack(recipe(), corpus.folder.parent / "ds")
    return corpus


@pytest.fixture(scope="module")
def dataset(corpus):
    return str(corpus.folder.parent / "ds")


def kept(corpus):
    return {doc.doc_id: doc for part in corpus.documents for doc in part if doc.rule is None}


def texts_of(dataset, rows):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(f"{dataset}/{read_manifest(dataset).tokenizer.path}")
    return {bytes(row["doc_id"]): tokenizer.decode(row["tokens"], skip_special_tokens=True) for row in rows}


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_opens_the_shards(corpus, dataset, streaming, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    shards = open_dataset(dataset).files("shards")
    rows = datasets.load_dataset(
        "arrow", data_files=shards, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    assert texts_of(dataset, rows) == {doc_id: final_text(doc) for doc_id, doc in kept(corpus).items()}


def test_only_one_split_is_listed_when_asked_for(corpus, dataset):
    train, validation = (open_dataset(dataset).files("shards", split) for split in ("train", "validation"))
    assert sorted(train + validation) == sorted(open_dataset(dataset).files("shards"))
    assert all("-validation-" in path for path in validation)
    with pytest.raises(ValueError, match="'tokens': a kind of files is shards, ledger or index"):
        open_dataset(dataset).files("tokens")


def test_duckdb_reads_the_ledger(corpus, dataset):
    query = "SELECT rule, count(*), sum(num_tokens), min(octet_length(doc_id)) FROM read_parquet(?) GROUP BY rule"
    rows = {rule: rest for rule, *rest in duckdb.execute(query, [open_dataset(dataset).files("ledger")]).fetchall()}
    funnel = read_manifest(dataset).funnel
    tokens = sum(count.tokens for count in funnel.splits.values())
    assert rows[None] == [funnel.kept, tokens, 16]
    assert {rule: rest[0] for rule, rest in rows.items() if rule} == funnel.dropped


def test_pandas_reads_the_ledger(corpus, dataset):
    frame = pandas.concat([pandas.read_parquet(path) for path in open_dataset(dataset).files("ledger")])
    assert len(frame) == 70
    assert set(frame.loc[frame.kept, "doc_id"]) == set(kept(corpus))
    assert list(frame.loc[~frame.kept, "shard"].isna().unique()) == [True]


def test_every_ledger_row_points_to_its_document(corpus, dataset):
    paths = read_shards(dataset, read_manifest(dataset))["path"].to_pylist()
    shards = [pa.ipc.open_file(pa.memory_map(f"{dataset}/{path}")).read_all() for path in paths]
    for path in open_dataset(dataset).files("ledger"):
        frame = pandas.read_parquet(path)
        for _, row in frame[frame.kept].iterrows():
            document = shards[int(row["shard"])].slice(int(row["row"]), 1).to_pylist()[0]
            assert document["doc_id"] == row["doc_id"]
            assert len(document["tokens"]) == row["num_tokens"]


def test_the_stored_recipe_is_the_recipe(dataset):
    (path,) = (name for name in read_names(dataset) if name.startswith("recipe-"))
    stored = load_recipe(f"{dataset}/{path}")
    assert stored.digest() == recipe().digest() == read_manifest(dataset).digests.recipe


def read_names(dataset):
    from schemas.manifest import read_files

    return read_files(dataset, read_manifest(dataset))["path"].to_pylist()


def test_index_files_grow_in_number_with_the_rows():
    assert [index_digits(rows) for rows in (0, 1 << 20, (1 << 20) + 1, 16 << 20, 256 << 20, (256 << 20) + 1)] == [
        *(0, 0, 1, 1, 2, 3)
    ]


def test_index_rows_are_parted_by_their_first_digits(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.pack.index.FILE_ROWS", 8)
    corpus = Corpus(tmp_path / "in")
    corpus.add("web", [Doc(f"d{n}", "text", url=f"http://x/{n}") for n in range(100)])
    corpus.pack(recipe(), tmp_path / "ds")
    paths = [path for path in open_dataset(str(tmp_path / "ds")).files("index") if "/near/" not in path]
    tables = {
        path.split("/index/")[1].split("-")[0]: pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths
    }
    documents = {name.split("/")[1]: table for name, table in tables.items() if name.startswith("documents/")}
    assert sum(len(table) for table in documents.values()) == 100
    assert all(len(prefix) == 1 for prefix in documents)
    for prefix, table in documents.items():
        ids = [doc_id.hex() for doc_id in table["doc_id"].to_pylist()]
        assert ids == sorted(ids)
        assert all(doc_id.startswith(prefix) for doc_id in ids)
    urls = {name.split("/")[1]: table["url_hash"].to_pylist() for name, table in tables.items() if "urls/" in name}
    assert all(f"{value:016x}".startswith(prefix) for prefix, values in urls.items() for value in values)
    assert sum(map(len, urls.values())) == 100


def test_parting_nothing_gives_nothing():
    assert list(partition("documents", b"", 0)) == list(partition("urls", b"", 2)) == []


def test_the_manifest_says_nothing_of_where_it_was_made(corpus, dataset):
    text = json.dumps(read_manifest(dataset).model_dump())
    assert str(corpus.folder.parent) not in text
