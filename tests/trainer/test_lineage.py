"""From a step to its documents and back, against a plain walk over the run."""

from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import DatasetError
from schemas.packing import place_documents
from tests.made_dataset import MadeDataset, doc_id, made, some_documents
from trainer.data.token_stream import one_phase
from trainer.data.train_split import TrainSplit, open_train_split
from trainer.lineage.document_steps import documents_of_rows, steps_of_document
from trainer.order.batch_order import Order, Phase, slice_of

T = 16


def a_run(dataset: TrainSplit, packing: str, skipped: tuple[int, ...] = ()) -> Order:
    weights = {"web": "0.7", "wiki": "0.3"}
    phase = one_phase([dataset], sequence_length=T, global_batch=6, packing=packing, weights=weights)
    return Order(7, [phase], skipped)


def seen_by_walking(data: MadeDataset, order: Order, batch: int) -> list[tuple[int, str, int, int]]:
    """(row, document, first token, tokens) of every piece of a batch, from the shards' own documents."""
    numbers = {data.sha256(number): number for number in range(len(data.shards))}
    rows, found = order.batch(batch), []
    for row, (shard, place) in enumerate(zip(rows.shard_G.tolist(), rows.row_G.tolist(), strict=True)):
        made_shard = data.shards[numbers[order.shards.sha256_N[shard].tobytes()]]
        lengths = [len(document) for document in made_shard.documents]
        if order.phase_of(batch).packing == "documents":
            placed = place_documents(np.array(lengths), T)
            pieces = [
                (document, offset, length)
                for document, offset, length, at in zip(*(c.tolist() for c in placed), strict=True)
                if at == place
            ]
        else:
            owner = [(d, i) for d, length in enumerate(lengths) for i in range(length)][place * T : (place + 1) * T]
            documents = list(dict.fromkeys(d for d, _ in owner))
            pieces = [(d, min(i for e, i in owner if e == d), sum(e == d for e, _ in owner)) for d in documents]
        found += [(row, made_shard.names[d], offset, length) for d, offset, length in pieces]
    return found


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_documents_of_a_batch_are_those_that_lie_in_its_rows(tmp_path: Path, packing: str) -> None:
    data = made(tmp_path, {"web": [300, 260, 410], "wiki": [200, 170]}, sequence_lengths=[T])
    dataset = open_train_split(data.uri)
    order = a_run(dataset, packing)
    for batch in (0, 3, 11, 25):
        shown = documents_of_rows([dataset], order, order.batch(batch))
        pieces = [(each.row, each.doc_id, each.first_token, each.num_tokens) for each in shown]
        expected = seen_by_walking(data, order, batch)
        assert pieces == [(row, doc_id(name).hex(), first, count) for row, name, first, count in expected]
        urls = [f"http://{name.split('-')[0]}.test/{name}" for _, name, _, _ in expected]
        assert [each.url for each in shown] == urls


def test_a_document_is_told_with_its_place_in_shard_and_ledger(tmp_path: Path) -> None:
    data = MadeDataset(tmp_path)
    data.add("web", [[5] * 15 + [0], [6] * 15 + [0]])
    data.commit()
    dataset = open_train_split(data.uri)
    order = Order(0, [one_phase([dataset], sequence_length=16, global_batch=2)])
    second = documents_of_rows([dataset], order, order.batch(0), rows=[1])
    assert [each.to_dict() for each in second] == [
        {
            "row": 1,
            "source": "web",
            "doc_id": doc_id("web-0-1").hex(),
            "url": "http://web.test/web-0-1",
            "record_id": "urn:web-0-1",
            "input": "web.warc",
            "position": 100,
            "language": "en",
            "first_token": 0,
            "num_tokens": 16,
            "shard": data.shards[0].row["path"],
            "shard_row": 1,
            "ledger": next(str(path.relative_to(tmp_path)) for path in (tmp_path / "ledger").iterdir()),
            "ledger_row": 1,
            "cluster_size": 1,
            "why_kept": "passed every rule, no other copy",
        }
    ]
    assert second[0].line().split()[:3] == ["1", "web", doc_id("web-0-1").hex()]


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_steps_of_a_document_are_all_that_a_walk_over_the_run_finds(tmp_path: Path, packing: str) -> None:
    data = made(tmp_path, {"web": [300, 260], "wiki": [200, 170]}, sequence_lengths=[T])
    dataset = open_train_split(data.uri)
    order = a_run(dataset, packing, skipped=(3, 4, 9))
    steps = 30
    seen: dict[str, set[tuple[int, int]]] = {}
    for step in range(steps):
        for row, name, _, _ in seen_by_walking(data, order, order.batch_of_step(step)):
            seen.setdefault(name, set()).add((step, row))
    names = [name for shard in data.shards for name in shard.names]
    for name in names[::3]:
        found = steps_of_document([dataset], order, doc_id(name).hex(), steps)
        assert [(each.step, each.row) for each in found] == sorted(seen.get(name, set())), name
    assert any(len(places) > 1 for places in seen.values()), "some document must be seen in two epochs"


def test_a_document_is_found_by_its_url(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300], "wiki": [200]})
    dataset = open_train_split(data.uri)
    order = a_run(dataset, "windows")
    by_url = steps_of_document([dataset], order, "http://wiki.test/wiki-1-2", 40)
    assert by_url
    assert by_url == steps_of_document([dataset], order, doc_id("wiki-1-2").hex(), 40)


def test_what_was_pruned_or_damaged_is_said_in_one_line(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300], "wiki": [200]})
    dataset = open_train_split(data.uri)
    order = a_run(dataset, "windows")
    steps = steps_of_document([dataset], order, doc_id("web-0-1").hex(), 40)
    (ledger,) = (tmp_path / "ledger").glob("*-web-*")
    ledger.write_bytes(b"")
    with pytest.raises(DatasetError, match=rf"{ledger.name} is damaged \(Parquet file size is 0 bytes\): copy it"):
        steps_of_document([dataset], order, "http://web.test/web-0-1", 40)
    ledger.unlink()
    with pytest.raises(DatasetError, match=rf"{ledger.name} is missing; .*; steps are found without the ledger by"):
        steps_of_document([dataset], order, "http://web.test/web-0-1", 40)
    assert steps_of_document([dataset], order, doc_id("web-0-1").hex(), 40) == steps
    data.path(0).unlink()
    with pytest.raises(DatasetError, match=rf"{data.path(0)} is missing \(pruned, or not copied\): copy it"):
        steps_of_document([dataset], order, doc_id("web-0-1").hex(), 40)


def test_forward_and_back_agree(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300, 260], "wiki": [200]})
    dataset = open_train_split(data.uri)
    order = a_run(dataset, "windows", skipped=(1,))
    step = 5
    rows = slice_of(order.batch(order.batch_of_step(step)), 0, 1)
    for each in documents_of_rows([dataset], order, rows):
        back = steps_of_document([dataset], order, each.doc_id, step + 1)
        assert (step, each.row) in [(found.step, found.row) for found in back]


def test_a_document_of_an_added_generation_is_seen_only_after_the_join(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300, 260]})
    first = open_train_split(data.uri)
    number = data.add("web", some_documents(320, seed=9))
    data.commit()
    second = open_train_split(data.uri)
    phases = [
        Phase(start, 4, T, "windows", {"web": "1"}, dataset.shards) for start, dataset in ((0, first), (5, second))
    ]
    order = Order(7, phases)
    name = data.shards[number].names[1]
    steps = steps_of_document([first, second], order, doc_id(name).hex(), 20)
    assert steps
    assert all(each.batch >= 5 for each in steps)


def test_unknown_and_validation_documents_are_refused_with_a_reason(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300]})
    number = data.add("web", some_documents(100, seed=5), split="validation")
    data.commit()
    dataset = open_train_split(data.uri)
    order = Order(0, [one_phase([dataset], sequence_length=T, global_batch=4)])
    with pytest.raises(ValueError, match="it is no kept document there: `gristmill explain"):
        steps_of_document([dataset], order, "http://nowhere.test/", 10)
    with pytest.raises(ValueError, match="it is kept for validation there, and no step of this run reads it"):
        steps_of_document([dataset], order, doc_id(data.shards[number].names[0]).hex(), 10)
    assert steps_of_document([dataset], order, doc_id("web-0-0").hex(), 0) == []
