"""The dataset, the work folder, the parts and the verdicts in a bucket."""

import dataclasses

import pytest

from pipeline.pack.verify.verify import verify
from schemas import storage
from schemas.dataset import open_newest
from tests.pack.corpus import Corpus, recipe, some_documents, tree

pytestmark = pytest.mark.slow


def test_a_bucket_gets_the_bytes_that_a_folder_gets(tmp_path, s3):
    corpus = Corpus(tmp_path / "in")
    corpus.add("books", some_documents("books", 30))
    corpus.add("web", some_documents("web", 40))
    corpus.pack(recipe(), tmp_path / "ds")
    corpus.pack(recipe(), tmp_path / "ds", previous=open_newest(str(tmp_path / "ds")))
    crawls, dataset = s3("pack-crawls"), f"{s3('pack-datasets')}/demo"
    for path in (tmp_path / "in").iterdir():
        storage.write(f"{crawls}/{path.name}", path)
    remote = Corpus(
        tmp_path,
        [dataclasses.replace(part, uri=f"{crawls}/part-{part.number}.arrow") for part in corpus.parts],
        corpus.pieces,
    )
    remote.verdict_uri = lambda part: f"{crawls}/verdict-{part.number}.arrow"
    remote.pack(recipe(), dataset)
    # Another work folder: the second generation copies from the shards in the bucket.
    remote.pack(recipe(), dataset, work=f"{dataset}/other", previous=open_newest(dataset))
    assert verify(dataset)["faults"] == []
    found = {stat.uri.removeprefix(f"{dataset}/"): stat.uri for stat in storage.list_files(dataset)}
    made = {name: storage.read(uri) for name, uri in found.items() if not name.startswith(("work/", "other/"))}
    assert made == tree(tmp_path / "ds", "work")
