"""A rank's batches: the same global batches for any ranks and workers, resumed anywhere; state, losses, refusals."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from schemas.manifest import DatasetError
from tests.made_dataset import END_OF_TEXT, MadeDataset, made, some_documents
from tests.servers import ROOT
from trainer.data.batch_reader import Job, Reader
from trainer.data.shard_rows import IGNORED, widen
from trainer.data.token_stream import TokenBatch, TokenStream
from trainer.data.train_split import TrainSplit, open_train_split
from trainer.order.batch_order import Order, Phase, update_digest

RANKS, WORKERS = (1, 2, 3, 4, 6, 8), (0, 1, 3)
SKIPPED = (4, 11)
Row = tuple[bytes, int, bytes]  # sha256 of the shard, row, digest of inputs and targets


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TrainSplit], list[Phase]]:
    """A mixture, a join of a generation that replaces a shard, another batch size and sequence length; 20 batches."""
    data = made(tmp_path_factory.mktemp("run") / "data", {"web": [300, 260, 410, 320, 290], "wiki": [200, 170]})
    first = open_train_split(data.uri)
    data.add("web", some_documents(280, seed=20), replaces=[0])
    data.add("wiki", some_documents(240, seed=21))
    data.commit()
    second = open_train_split(data.uri)
    even, other = {"web": "0.7", "wiki": "0.3"}, {"web": "0.5", "wiki": "0.5"}
    caps = {"web": "2", "wiki": "2.5"}
    phases = [
        Phase(0, 8, 16, "windows", even, first.shards),
        Phase(6, 8, 16, "windows", even, second.shards),
        Phase(9, 11, 16, "windows", other, second.shards),
        Phase(13, 6, 24, "windows", even, second.shards, caps, "stop"),
    ]
    return [first, second], phases


def digest(tokens_T: np.ndarray, targets_T: np.ndarray) -> bytes:
    return hashlib.blake2b(tokens_T.tobytes() + targets_T.tobytes(), digest_size=8).digest()


def rows_of(batch: TokenBatch, order: Order) -> list[Row]:
    inputs, targets = batch.tokens_BT.numpy(), batch.targets_BT.numpy()
    places = zip(batch.samples.shard_G.tolist(), batch.samples.row_G.tolist(), strict=True)
    return [
        (order.shards.sha256_N[shard].tobytes(), row, digest(inputs[i], targets[i]))
        for i, (shard, row) in enumerate(places)
    ]


def global_batches(job: Job, start: int, world: int, workers: int) -> Iterator[tuple[int, list[Row]]]:
    """Batches from `start` on, put together from what every worker of every rank reads: the processes' own code."""
    merged = [_rank_batches(replace(job, rank=rank, world=world), start, workers) for rank in range(world)]
    for parts in zip(*merged, strict=True):
        assert len({number for number, _ in parts}) == 1
        yield parts[0][0], [row for _, rows in parts for row in rows]


def _rank_batches(job: Job, start: int, workers: int) -> Iterator[tuple[int, list[Row]]]:
    count = max(workers, 1)
    readers = [Reader(job, start + w, lambda: False) for w in range(count)]
    batches = [reader.batches(start + w, count) for w, reader in enumerate(readers)]
    order, b = job.order(), start
    while True:
        if order.step_of_batch(b) is not None:
            read = next(batches[(b - start) % count], None)
            if read is None:
                return
            assert read.samples.number == b
            wide = widen(read.narrow, END_OF_TEXT, False)
            tensors = TokenBatch(torch.from_numpy(wide[0]), torch.from_numpy(wide[1]), None, None, b, read.samples)
            yield b, rows_of(tensors, order)
        b += 1


@pytest.fixture(scope="module")
def whole(run: tuple[list[TrainSplit], list[Phase]]) -> dict[int, list[Row]]:
    """The uninterrupted run of one process."""
    datasets, phases = run
    stream = TokenStream(datasets, seed=7, phases=phases, skipped=SKIPPED)
    return {batch.batch: rows_of(batch, stream.order) for batch in stream}


def test_the_run_has_all_that_makes_resuming_hard(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    order = Order(7, run[1], SKIPPED)
    last = order.last_batch()
    assert last is not None
    assert sorted(whole) == [b for b in range(last + 1) if b not in SKIPPED]
    assert len(whole) > 15
    epochs = {int(epoch) for b in whole for epoch in order.batch(b).epoch_G}
    assert epochs == {0, 1, 2}
    assert any(order.batch(b).carried_G.any() for b in whole)


@pytest.mark.parametrize("world", RANKS)
def test_global_batches_are_the_same_lists_for_any_ranks_and_workers(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]], world: int
) -> None:
    job = Job(run[0], 7, run[1], skipped=SKIPPED)
    for workers in WORKERS:
        assert dict(global_batches(job, 0, world, workers)) == whole, workers


def test_a_run_resumed_at_every_step_with_another_topology_each_time_is_the_same_run(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    job, order = Job(run[0], 7, run[1], skipped=SKIPPED), Order(7, run[1], SKIPPED)
    topologies = list(product(RANKS, WORKERS))
    seen: dict[int, list[Row]] = {}
    rolled, expected = bytes(32), bytes(32)
    start = 0
    for step in range(len(whole)):
        world, workers = topologies[(5 * step + 1) % len(topologies)]
        number, rows = next(global_batches(job, start, world, workers))
        seen[number] = rows
        rolled = update_digest(rolled, order.batch(number), order)
        start = number + 1
    assert seen == whole
    for b in sorted(whole):
        expected = update_digest(expected, order.batch(b), order)
    assert rolled == expected
    with pytest.raises(StopIteration):
        next(global_batches(job, start, 3, 3))


def test_one_epoch_reads_each_row_once(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300, 260, 410, 320, 290]})
    dataset = open_train_split(data.uri)
    stream = TokenStream(dataset, sequence_length=16, global_batch=9, max_epochs={"web": 1}, at_cap="stop")
    rows = [row[:2] for batch in stream for row in rows_of(batch, stream.order)]
    possible = [(data.sha256(n), row) for n in range(5) for row in range(data.shards[n].row["tokens"] // 16)]
    assert len(set(rows)) == len(rows) == len(possible) // 9 * 9
    assert set(rows) <= set(possible)


# ---------------------------------------------------------------- real processes


def test_worker_processes_give_the_batches_of_a_single_process(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    streams = [
        TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED, rank=rank, world=2, workers=workers)
        for rank, workers in enumerate((3, 1))
    ]
    found = {}
    for parts in zip(*streams, strict=True):
        found[parts[0].batch] = [row for part in parts for row in rows_of(part, streams[0].order)]
    assert found == whole


def test_a_killed_worker_is_started_again_and_no_batch_is_lost(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    stream = TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED, workers=2)
    found = {}
    for batch in stream:
        found[batch.batch] = rows_of(batch, stream.order)
        if len(found) == 5:
            running = stream._running
            assert running is not None
            os.kill(running._workers[1]._process.pid, signal.SIGKILL)
    assert found == whole


def test_a_stream_is_a_dataset_of_whole_batches_for_torch(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    stream = TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED)
    loader = DataLoader(stream, batch_size=None)
    assert {batch.batch: rows_of(batch, stream.order) for batch in loader} == whole
    with pytest.raises(ValueError, match=r"give TokenStream workers=2, and DataLoader num_workers=0"):
        list(DataLoader(stream, batch_size=None, num_workers=2))


def test_a_process_ends_well_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [160, 160]})
    settings = f"sequence_length=16, global_batch=4, workers=1, rank=0, world=1, data={data.uri!r}"
    imports = "from trainer.data.token_stream import TokenStream"
    lines = f"{imports}\nbatches = iter(TokenStream({settings}))\nprint(next(batches).batch)"
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# ---------------------------------------------------------------- masks, packing


def test_masks_come_with_both_packings(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [300, 260]}, sequence_lengths=[16])
    for packing in ("windows", "documents"):
        stream = TokenStream(data.uri, sequence_length=16, global_batch=5, packing=packing, mask="documents")
        batch = next(iter(stream))
        stream.close()
        assert batch.positions_BT is not None
        assert batch.documents_BT is not None
        fresh = batch.positions_BT[:, 1:] == 0
        real = batch.documents_BT[:, 1:] >= 0
        changes = batch.documents_BT[:, 1:] != batch.documents_BT[:, :-1]
        assert torch.equal(fresh & real, changes & real)
        assert torch.equal(batch.documents_BT == -1, batch.targets_BT == IGNORED)
        if packing == "windows":  # in `documents`, a piece that goes on with its document begins with its last token
            assert (batch.tokens_BT[:, 1:][fresh] == END_OF_TEXT).all()


# ---------------------------------------------------------------- state


def test_the_state_is_the_consumers_count_on_every_rank(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    streams = [
        TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED, rank=rank, world=2, workers=rank)
        for rank in range(2)
    ]
    for stream in streams:
        batches = iter(stream)
        for _ in range(7):
            next(batches)
    states = [stream.state_dict(5) for stream in streams]
    assert states[0] == states[1]
    assert states[0]["batch"] == sorted(whole)[4] + 1  # batch 4 is skipped, so five steps reach batch 5
    assert streams[0].state_dict()["batch"] == sorted(whole)[6] + 1
    with pytest.raises(ValueError, match="consumed=8: this stream has given 7 batches"):
        streams[0].state_dict(8)
    resumed = TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED, rank=0, world=1)
    resumed.load_state_dict(states[0])
    assert {batch.batch: rows_of(batch, resumed.order) for batch in resumed} == {
        b: rows for b, rows in whole.items() if b >= states[0]["batch"]
    }
    for stream in streams:
        stream.close()


def test_a_state_of_another_run_is_refused_with_the_difference(run: tuple[list[TrainSplit], list[Phase]]) -> None:
    state = TokenStream(run[0], seed=7, phases=run[1], start_batch=10).state_dict()
    for changes, message in [
        ({"seed": 8}, "its seed is 7, this stream's 8"),
        ({"skipped": (1,)}, r"its skipped is \[\], this stream's \[1\]"),
        ({"phases": [run[1][0], replace(run[1][1], global_batch=4), *run[1][2:]]}, "its plan is"),
    ]:
        settings = {"seed": 7, "phases": run[1], "skipped": ()} | changes
        with pytest.raises(ValueError, match=message):
            TokenStream(run[0], **settings).load_state_dict(state)  # type: ignore[arg-type]
    later = [*run[1][:3], replace(run[1][3], global_batch=4)]  # it has not begun at batch 10
    TokenStream(run[0], seed=7, phases=later).load_state_dict(state)


def test_iteration_goes_on_where_it_stood(
    run: tuple[list[TrainSplit], list[Phase]], whole: dict[int, list[Row]]
) -> None:
    stream = TokenStream(run[0], seed=7, phases=run[1], skipped=SKIPPED)
    found: dict[int, list[Row]] = {}
    while True:
        before = len(found)
        for batch in stream:
            found[batch.batch] = rows_of(batch, stream.order)
            if len(found) % 3 == 0:
                break
        if len(found) == before:
            break
    assert found == whole
    assert not [thread for thread in threading.enumerate() if thread.name == "token-stream"]


# ---------------------------------------------------------------- bad input


def with_a_bad_shard(folder: Path) -> MadeDataset:
    """Three shards; in the second one bit of a token has flipped."""
    data = made(folder, {"web": [160, 160, 160]})
    path, tokens = data.path(1), data.stream_of(1)[:5].astype(np.uint16).tobytes()
    before, found, after = path.read_bytes().partition(tokens)
    assert found == tokens
    path.write_bytes(before + bytes([tokens[0] ^ 1]) + tokens[1:] + after)
    return data


def test_a_local_shard_that_is_missing_stops_before_the_first_step(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [160, 160]})
    data.path(1).unlink()
    with pytest.raises(DatasetError, match=f"{data.path(1).name}: No such file"):
        TokenStream(data.uri, sequence_length=16, global_batch=4)


def test_a_bad_shard_stops_the_run_with_its_name(tmp_path: Path) -> None:
    data = with_a_bad_shard(tmp_path)
    for workers in (0, 1):
        with pytest.raises(DatasetError, match=f"{data.path(1).name}: its sha256 is .*: copy it again"):
            list(TokenStream(data.uri, sequence_length=16, global_batch=30, max_epochs={"web": 1}, workers=workers))


def test_digests_are_not_looked_at_where_that_is_not_wanted_and_once_a_shard_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sequence_length": 16, "global_batch": 6, "max_epochs": {"web": 3}}
    bad = with_a_bad_shard(tmp_path / "bad")
    unseen = list(TokenStream(bad.uri, verify_shards=False, **settings))
    assert len(unseen) == 15
    good = made(tmp_path / "good", {"web": [160, 160, 160]})
    digested = []
    monkeypatch.setattr("trainer.data.batch_reader.check_digest", lambda path, *_: digested.append(path))
    assert len(list(TokenStream(good.uri, **settings))) == 15
    assert sorted(digested) == sorted(str(good.path(number)) for number in range(3))


def test_what_is_no_shard_is_said_where_no_digest_is_looked_at(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [160]})
    data.path(0).write_bytes(b"<html>" + bytes(data.path(0).stat().st_size - 6))
    with pytest.raises(DatasetError, match=f"{data.path(0).name}: not a shard"):
        next(iter(TokenStream(data.uri, sequence_length=16, global_batch=4, verify_shards=False)))


@pytest.mark.parametrize("kind", ["bad", "missing"])
def test_rows_of_a_lost_shard_keep_their_place_and_have_no_targets(tmp_path: Path, kind: str) -> None:
    good = made(tmp_path / "good", {"web": [160, 160, 160]})
    settings = {"sequence_length": 16, "global_batch": 6, "max_epochs": {"web": 2}}
    expected = list(TokenStream(good.uri, **settings))
    data = with_a_bad_shard(tmp_path / "bad") if kind == "bad" else made(tmp_path / "bad", {"web": [160, 160, 160]})
    if kind == "missing":
        data.path(1).unlink()
    stream = TokenStream(data.uri, on_lost_shard="skip", **settings)
    found = list(stream)
    sha256 = data.sha256(1)
    for batch, whole in zip(found, expected, strict=True):
        lost = np.array([stream.order.shards.sha256_N[s].tobytes() == sha256 for s in batch.samples.shard_G])
        assert batch.samples.row_G.tolist() == whole.samples.row_G.tolist()
        assert (batch.targets_BT[lost] == IGNORED).all()
        assert torch.equal(batch.targets_BT[~lost], whole.targets_BT[~lost])
        assert torch.equal(batch.tokens_BT[~lost], whole.tokens_BT[~lost])
    first = next(b.batch for b in found if (b.targets_BT == IGNORED).any())
    assert stream.lost() == {sha256.hex(): first if kind == "bad" else 0}
    assert stream.state_dict()["lost"] == stream.lost()


def test_what_another_rank_lost_has_no_targets_from_that_batch_on(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [160, 160, 160]})
    sha256 = data.sha256(2)
    stream = TokenStream(data.uri, sequence_length=16, global_batch=6, max_epochs={"web": 2}, on_lost_shard="skip")
    for batch in stream:
        if batch.batch == 2:
            stream.join_lost({sha256.hex(): 2})
            batch.mask_lost(stream.lost(), stream.order)
        of_it = torch.tensor([stream.order.shards.sha256_N[s].tobytes() == sha256 for s in batch.samples.shard_G])
        assert bool((batch.targets_BT[of_it] == IGNORED).all()) == (batch.batch >= 2 or not of_it.any())
        assert (batch.targets_BT[~of_it] != IGNORED).all()


def test_settings_that_make_no_sense_are_refused(run: tuple[list[TrainSplit], list[Phase]], tmp_path: Path) -> None:
    bad: Sequence[tuple[dict[str, object], str]] = [
        ({"mask": "causal"}, "mask='causal'"),
        ({"on_lost_shard": "ignore"}, "on_lost_shard='ignore'"),
        ({"rank": 2, "world": 2}, "rank=2 of world=2"),
        ({"workers": -1}, "workers=-1"),
        ({"global_batch": 4}, "global_batch given beside phases"),
    ]
    for settings, message in bad:
        with pytest.raises(ValueError, match=message):
            TokenStream(run[0], phases=run[1], **settings)  # type: ignore[arg-type]
    data = made(tmp_path, {"web": [160]})
    with pytest.raises(ValueError, match="source 'web' has 10 rows"):
        TokenStream(data.uri, sequence_length=16, global_batch=64)
