"""A training run, top to bottom.

    join the world -> resolve the configuration -> build the model -> take up the newest checkpoint -> steps -> finish

A step is: a batch; its target tokens counted over all ranks; loss and gradients, micro-batch by micro-batch; the norm;
the judgement whether that is a spike; the update; what is due at this step. Nothing happens anywhere else: no
callbacks, no hooks. B rows of this rank's batch, T positions.
"""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from schemas.lock import writer_lock
from trainer.build import build, tensors_of
from trainer.checkpoint.checkpointer import Checkpoints, Loaded
from trainer.checkpoint.run_state import RunState, check_fits, first_state
from trainer.commands import frozen
from trainer.config import Config
from trainer.data.token_stream import TokenBatch, TokenStream
from trainer.distributed.parallelize import World, join_world, local_part, lost_peer
from trainer.estimate.memory import check_memory
from trainer.model.transformer import IGNORED, Transformer
from trainer.monitor.loss_spikes import SpikeRule, Verdict
from trainer.monitor.run_logger import Teller
from trainer.optim.optimizers import Optimizers, clip_by_global_norm
from trainer.order.batch_order import Order, roll
from trainer.resolve import Resolved, check_files, resolve

__all__ = ["train"]


PATIENCE_SECONDS = 5.0  # after a signal, before another one ends the run at once


class TrainingFailed(ValueError):
    """The run cannot go on by itself: its message says why, and what to look at."""


class RankLost(TrainingFailed):
    """Another rank is gone. Each rank that is left says so: rank 0 may be the one."""

    said_by_every_rank = True


@dataclass
class Training:
    """What a step works on."""

    run: Resolved
    world: World
    model: Transformer
    optimizers: Optimizers
    checkpoints: Checkpoints
    spikes: SpikeRule
    tell: Teller
    signals: list[int]  # that asked this process to stop
    state: RunState
    order: Order
    stream: TokenStream


def train(config: Config) -> int:
    """Train by a configuration, from its newest sound checkpoint if it has one; returns the exit code.

    Raises ConfigError for what cannot be trained (before a step is run), DatasetError for a dataset that is not whole,
    StorageError for a store or a disk that refuses, TrainingFailed for a run that must be looked at.
    """
    with join_world(config.parallel, config.device) as world, _only_run(config, world), _stop_signals() as signals:
        run = resolve(frozen(config)[0], world.size)
        check_memory(run, world)
        check_files(run)
        t = begin(run, world, signals)
        try:
            return loop(t)
        except RuntimeError as error:
            if not lost_peer(error):
                raise
            raise RankLost(
                f"rank {world.rank}: another rank has ended or does not answer ({str(error).splitlines()[0]}): its own "
                "words say why; run the same command again to go on from the last checkpoint"
            ) from None
        finally:
            t.checkpoints.close()
            t.stream.close()
            t.tell.close()


def begin(run: Resolved, world: World, signals: list[int]) -> Training:
    """Build everything, and take up the newest checkpoint."""
    model, optimizers = build(run, world)
    options, spikes = run.config.checkpoint, run.config.spikes
    checkpoints = Checkpoints(
        run.checkpoints_uri,
        keep_last=options.keep_last,
        keep_every=options.keep_every,
        staging=options.staging,
    )
    rule = SpikeRule(spikes.window, spikes.warmup, spikes.threshold, spikes.action)
    order, state = run.order(), first_state(run)
    stream = open_stream(run, world, state)
    t = Training(run, world, model, optimizers, checkpoints, rule, Teller(run, world), signals, state, order, stream)
    found = restore(t)
    follow(t)
    t.tell.start(t.state, t.order)
    if found is not None:
        t.tell.resumed(t.state, found)
    checkpoints.sweep()
    if spikes.action == "rewind" and found is None:
        save(t)  # there must be something to go back to
    return t


def loop(t: Training) -> int:
    """Steps until the schedule, the data or a signal ends them."""
    batches = iter(t.stream)
    while t.state.step < t.run.steps:
        with t.tell.waiting(t.state.step):
            batch = next(batches, None)
        if batch is None:
            return finish(t, "the data ended")
        targets, stopping = agree(t, batch)
        loss, norm = accumulate_gradients(t, batch, sum(targets.values()))
        start = t.order.phase_of(batch.batch).start
        verdict = t.spikes.judge(loss, norm, batch.batch - start if start else None)
        if verdict.spike:
            t.tell.spike(t.model, batch, t.order.batch(batch.batch), t.order, t.state.step, verdict)
        if verdict.refused:
            batches = pass_over(t, batch, verdict, batches)
            continue
        t.tell.phase(t.state.step, "optimizer")
        norms = t.tell.layer_norms(t.model, t.state.step)
        rate = t.run.schedule.rate(t.state.step)
        t.optimizers.step(rate)
        t.optimizers.zero_grad()
        advance(t, batch, targets)
        t.tell.step(t.state, loss, norm, rate, sum(targets.values()), norms)
        if t.run.evaluation_due(t.state.step):
            t.tell.evaluate(t.model, t.order, t.state)
        if stopping:
            return finish(t, "stopped by a signal")
        if t.run.checkpoint_due(t.state.step):
            save(t)
    return finish(t, "finished")


# ---------------------------------------------------------------- a step


def agree(t: Training, batch: TokenBatch) -> tuple[dict[str, int], bool]:
    """Target tokens of the whole batch by source, and whether any rank was asked to stop: one small reduction.

    Ranks join their lost shards first: a row of one has no targets on any rank, or on all that ever read it.
    Raises CheckpointError when one went wrong meanwhile: steps that cannot be kept are not worth their time.
    """
    while True:
        counted_B = (batch.targets_BT != IGNORED).sum(dim=1)
        names = t.order.shards.sources
        local = [0] * len(names)
        for source, counted in zip(batch.rows.source_G.tolist(), counted_B.tolist(), strict=True):
            local[source] += counted
        lost = t.stream.lost()
        known = set(t.state.lost)
        told = [len(t.signals), t.checkpoints.failed, len(set(lost) - known)]
        stops, failures, news, *totals = t.world.add([*told, *local])
        if failures:
            wait(t)
        if not news:
            return dict(zip(names, totals, strict=True)), stops > 0
        joined: dict[str, int] = dict(t.state.lost)
        for one in t.world.gather(lost):
            joined |= {sha256: min(first, joined.get(sha256, first)) for sha256, first in one.items()}
        t.tell.lost(t.state.step, sorted(joined.keys() - known), t.order)
        t.state = replace(t.state, lost=joined)
        t.stream.join_lost(joined)
        batch.mask_lost(joined, t.order)


def accumulate_gradients(t: Training, batch: TokenBatch, num_targets: int) -> tuple[float, float]:
    """Gradients of the batch's mean loss, clipped; returns the loss over all ranks and the norm before clipping.

    The loss is the sum over targets divided by the targets of the *global* batch: a mean of the micro-batches' means
    would give a target in a padded row more weight than one in a full row.
    """
    total = torch.zeros((), device=t.world.device)
    if t.world.device.type == "cuda":
        batch = batch.pin()  # or the CPU would wait for each copy
    for part in batch.split(t.run.micro_batch):
        part = part.to(t.world.device)
        t.tell.phase(t.state.step, "forward")
        loss = t.model(part.tokens_BT, part.targets_BT, part.positions_BT, part.documents_BT) / max(num_targets, 1)
        t.tell.phase(t.state.step, "backward")
        loss.backward()
        total += loss.detach()
    norm = clip_by_global_norm(t.model.parameters(), t.run.config.optimizer.clip)
    # The one place of a step where the CPU waits for the device: the update is not made before the judgement.
    loss_and_norm = torch.stack([t.world.total(total), norm.to(total.dtype)]).tolist()
    return loss_and_norm[0], loss_and_norm[1]


def advance(t: Training, batch: TokenBatch, targets: dict[str, int]) -> None:
    """The state after a trained batch."""
    digest = roll(bytes.fromhex(t.state.digest), t.order.batch(batch.batch), t.order).hex()
    tokens = {name: t.state.tokens.get(name, 0) + count for name, count in targets.items()}
    t.state = replace(t.state, step=t.state.step + 1, batch=batch.batch + 1, tokens=tokens, digest=digest)


# ---------------------------------------------------------------- spikes


def pass_over(t: Training, batch: TokenBatch, verdict: Verdict, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
    """A batch whose gradients must not reach the weights is skipped, or the run goes back to before the damage.

    Raises TrainingFailed when more were passed over than `spikes.most`.
    """
    t.optimizers.zero_grad()
    options, before = t.run.config.spikes, len(t.state.skipped)
    if before >= options.most:
        raise TrainingFailed(
            f"step {t.state.step}: {verdict.reason}, and {before} batches were passed over already (spikes.most="
            f"{options.most}): lower the learning rate, or look at the documents that the report names"
        )
    if options.action == "rewind":
        return rewind(t, batch.batch)
    t.state = t.state.skip([batch.batch])
    t.tell.skipped(t.state.step, batch.batch, verdict.reason)
    return batches


def rewind(t: Training, spike: int) -> Iterator[TokenBatch]:
    """Take up the newest sound checkpoint, past the batches from `spikes.before` ahead of the spike up to it."""
    now = t.state
    found = restore(t)
    assert found is not None, "a run that may rewind saves at its start"
    batches = range(max(t.state.batch, spike - t.run.config.spikes.before), spike + 1)
    t.state = replace(t.state.skip([*now.skipped, *batches]), rewinds=now.rewinds + 1, lost=now.lost)
    t.checkpoints.abandon(t.state.step)
    t.tell.rewound(t.state, found, batches)
    follow(t)
    return iter(t.stream)


# ---------------------------------------------------------------- checkpoints


def save(t: Training) -> None:
    """Begin a checkpoint; the run goes on while it is written. Raises CheckpointError when the one before failed.

    Raises TrainingFailed for weights that an update has made infinite or no numbers: nothing would mend them.
    """
    wait(t)
    if t.world.add([int(not torch.stack([local_part(p).isfinite().all() for p in t.model.parameters()]).all())])[0]:
        raise TrainingFailed(
            f"after {t.state.step} steps there are weights that are not finite, and no checkpoint is written of them: "
            "lower optimizer.learning_rate and start again; the run goes on from the checkpoint before"
        )
    t.state = replace(t.state, spikes=t.spikes.state_dict(), plan=t.order.plan_digest(t.state.batch))
    t.checkpoints.save(t.state.step, tensors_of(t.model, t.optimizers), t.state.to_json())


def wait(t: Training) -> None:
    """Until the checkpoint in hand is complete. Raises CheckpointError when it failed."""
    t.tell.phase(t.state.step, "checkpoint")
    t.tell.saved(t.checkpoints.wait())


def restore(t: Training) -> Loaded | None:
    """Take up the newest checkpoint that checks; None where there is none. Raises ValueError for another run's."""
    wait(t)
    found = t.checkpoints.load_newest(tensors_of(t.model, t.optimizers), lambda extra, path: fits(t, extra, path))
    if found is not None:
        t.state = replace(RunState.from_json(found.extra), settings=first_state(t.run).settings)
        t.spikes.load_state_dict(t.state.spikes)
    return found


def fits(t: Training, extra: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError when a checkpoint is of another model, dataset or order."""
    check_fits(RunState.from_json(extra), first_state(t.run), t.order, path)


def follow(t: Training) -> None:
    """Point order and stream at the state."""
    t.stream.close()
    t.order = t.run.order(t.state.skipped)
    t.stream = open_stream(t.run, t.world, t.state)


def open_stream(run: Resolved, world: World, state: RunState) -> TokenStream:
    """This rank's batches from the state on."""
    data = run.config.data
    return TokenStream(
        run.datasets,
        seed=run.config.seed,
        phases=run.phases,
        rank=world.rank,
        world=world.size,
        start_batch=state.batch,
        skipped=state.skipped,
        lost=dict(state.lost),
        workers=data.workers,
        cache=data.cache,
        mask=data.mask,
        verify_shards=data.verify_shards,
        on_lost_shard=data.on_lost_shard,
    )


def finish(t: Training, reason: str) -> int:
    """Write the last checkpoint, and say how it ended."""
    if t.checkpoints.newest_step != t.state.step:
        save(t)
    wait(t)
    t.tell.ended(t.state, reason)
    return 0


# ---------------------------------------------------------------- around the run


@contextlib.contextmanager
def _only_run(config: Config, world: World) -> Iterator[None]:
    """Rank 0 holds the lock on the run's folder. Raises StorageError when another run does."""
    with writer_lock(config.output) if world.leads else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT, noted: the ranks agree on the step after which they stop.

    Another one, some seconds later, ends a step that does not: one that waits for data from a store that is silent.
    (A Ctrl-C under torchrun comes twice at once, from the terminal and from torchrun.)
    """
    noted: list[int] = []
    times: list[float] = []

    def note(number: int, _: object) -> None:
        if times and time.monotonic() - times[0] > PATIENCE_SECONDS:
            raise KeyboardInterrupt
        noted.append(number)
        times.append(time.monotonic())

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
