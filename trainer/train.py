"""A training run, top to bottom.

    join the world -> resolve the configuration -> build the model -> load the newest checkpoint -> steps -> finish

A step is: a batch; its target tokens counted over all ranks; loss and gradients, micro-batch by micro-batch; the norm;
the judgement whether that is a spike; the update; what is due at this step. Nothing happens anywhere else: no
callbacks, no hooks. B sequences of this rank's batch, T positions.
"""

import contextlib
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from schemas.lock import writer_lock
from trainer.build import build, first_weights, tensors_of
from trainer.checkpoint.checkpointer import Checkpoints, Loaded
from trainer.checkpoint.layout import claim
from trainer.checkpoint.run_state import RunState, check_fits, first_state
from trainer.config import Config
from trainer.data.token_stream import TokenBatch, TokenStream
from trainer.distributed.launch import adopt_slurm
from trainer.distributed.mesh import World, join_world, local_part, lost_peer
from trainer.distributed.signals import Signals, requeue, stop_signals
from trainer.estimate.memory import check_memory
from trainer.model.transformer import IGNORED, Transformer
from trainer.monitor.loss_spikes import SpikeRule, Verdict
from trainer.monitor.measurements import Measurements
from trainer.monitor.run_logger import RunLogger
from trainer.monitor.watchdog import Watchdog, connect_store
from trainer.optim.optimizers import Optimizers, clip_by_global_norm
from trainer.order.batch_order import Order, update_digest
from trainer.pinned_config import pinned
from trainer.resolve import Resolved, check_files, resolve

__all__ = ["train"]


class TrainingFailed(ValueError):
    """The run cannot go on by itself: its message says why, and what to look at."""


class RankLost(TrainingFailed):
    """Another rank is gone. Each remaining rank reports it: rank 0 may be the lost one."""

    reported_by_every_rank = True


@dataclass
class Training:
    """What a step works on."""

    run: Resolved
    world: World
    model: Transformer
    optimizers: Optimizers
    checkpoints: Checkpoints
    spikes: SpikeRule
    measure: Measurements
    log: RunLogger
    watchdog: Watchdog
    signals: Signals
    state: RunState
    order: Order
    stream: TokenStream


def train(config: Config, step: int | None = None) -> int:
    """Train by a configuration, from its newest valid checkpoint if it has one; returns the exit code.

    `step`: from the checkpoint of that step instead; later ones are abandoned. Raises ConfigError for what cannot be
    trained (before a step is run), DatasetError for a dataset that is not whole, StorageError for a store or a disk
    that refuses, TrainingFailed for a run that must be looked at.
    """
    adopt_slurm()
    with join_world(config.parallel, config.device) as world, _only_run(config, world), stop_signals() as signals:
        started, state = pinned(config)
        run = resolve(started, world.size, state.model if state else None)
        check_memory(run, world)
        check_files(run, resumed=state is not None)
        t = begin(run, world, signals, step)
        try:
            return loop(t)
        except RuntimeError as error:
            if not lost_peer(error):
                raise
            raise RankLost(
                f"rank {world.rank}: another rank has ended or does not answer ({str(error).splitlines()[0]}): its own "
                "messages say why; run the same command again to go on from the last checkpoint"
            ) from None
        finally:
            t.checkpoints.close()
            t.stream.close()
            t.watchdog.close()
            t.measure.close()
            t.log.close()


def begin(run: Resolved, world: World, signals: Signals, step: int | None = None) -> Training:
    """Build everything, and load the newest checkpoint, or that of `step`."""
    model, optimizers = build(run, world)
    options, spikes = run.config.checkpoint, run.config.spikes
    checkpoints = Checkpoints(
        run.config.checkpoints_uri,
        keep_last=options.keep_last,
        keep_every=options.keep_every,
        keep_before=run.schedule.decay_start,
        staging=options.staging,
    )
    order, state = run.order(), first_state(run)
    t = Training(
        run=run,
        world=world,
        model=model,
        optimizers=optimizers,
        checkpoints=checkpoints,
        spikes=SpikeRule(spikes.window, spikes.warmup, spikes.threshold, spikes.action),
        measure=Measurements(run, world),
        log=RunLogger(run, world),
        watchdog=Watchdog(
            run.config.log.hang_seconds, run.config.output, world.rank, world.size, connect_store(world.store)
        ),
        signals=signals,
        state=state,
        order=order,
        stream=open_stream(run, world, state),
    )
    found = branch(t, step) if step is not None else restore(t)
    if found is None:
        first_weights(model, run)
    reopen_stream(t)
    t.log.started(t.state, t.order)
    if found is not None:
        t.log.resumed(t.state, found)
    checkpoints.clean_up()
    if spikes.action == "rewind" and found is None:
        save(t)  # there must be something to go back to
    return t


def loop(t: Training) -> int:
    """Train steps until the schedule, the data or a signal ends them."""
    batches = iter(t.stream)
    while t.state.step < t.run.steps:
        t.watchdog.heartbeat(t.state.step, "data")
        with t.measure.speed.waiting():
            batch = next(batches, None)
        if batch is None:
            return finish(t, "data")
        targets, stopping = agree(t, batch)
        loss, norm = accumulate_gradients(t, batch, sum(targets.values()))
        phase = t.order.phase_of(batch.batch)
        verdict = t.spikes.judge(loss, norm, batch.batch - phase.start if phase.start else None)
        if verdict.spike:
            worst = t.measure.worst_sequences(t.model, batch)
            t.log.spike(t.state.step, batch.batch, t.order, worst, verdict)
        if verdict.refused:
            batches = skip_batch(t, batch, verdict, batches)
            continue
        t.watchdog.heartbeat(t.state.step, "optimizer")
        norms = t.measure.layer_norms(t.model, t.state.step)
        rate = t.run.schedule.rate(t.state.step)
        t.optimizers.step(rate)
        t.optimizers.zero_grad()
        advance(t, batch, targets)
        speed = t.measure.step(t.state.step, sum(targets.values()), phase.sequence_length)
        values = {**speed, "loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": sum(targets.values())}
        t.log.step(t.state.step - 1, values | ({"layer_norms": norms} if norms else {}))
        if t.run.evaluation_due(t.state.step):
            evaluate(t)
        if stopping:
            return finish(t, "signal")
        if t.run.checkpoint_due(t.state.step):
            save(t)
    return finish(t, "steps")


# ---------------------------------------------------------------- a step


def agree(t: Training, batch: TokenBatch) -> tuple[dict[str, int], bool]:
    """Return the target tokens of the whole batch by source, and whether any rank got a signal: one small reduction.

    Ranks join their lost shards first: a sample of one has no targets on any rank, or on all that ever read it.
    Raises CheckpointError when one failed meanwhile: steps that cannot be saved are not worth their time.
    """
    while True:
        counted_B = (batch.targets_BT != IGNORED).sum(dim=1)
        names = t.order.shards.sources
        local = [0] * len(names)
        for source, counted in zip(batch.samples.source_G.tolist(), counted_B.tolist(), strict=True):
            local[source] += counted
        lost = t.stream.lost()
        known = set(t.state.lost)
        flags = [t.signals.stop, t.signals.requeue, t.checkpoints.failed, len(set(lost) - known)]
        stops, requeues, failures, news, *totals = t.world.add([int(flag) for flag in flags] + local)
        if failures:
            wait(t)
        if not news:
            t.signals.requeue = requeues > 0
            return dict(zip(names, totals, strict=True)), stops > 0
        joined: dict[str, int] = dict(t.state.lost)
        for one in t.world.gather(lost):
            joined |= {sha256: min(first, joined.get(sha256, first)) for sha256, first in one.items()}
        t.log.lost(t.state.step, sorted(joined.keys() - known), t.order)
        t.state = replace(t.state, lost=joined)
        t.stream.join_lost(joined)
        batch.mask_lost(joined, t.order)


def accumulate_gradients(t: Training, batch: TokenBatch, num_targets: int) -> tuple[float, float]:
    """Compute the gradients of the batch's mean loss, clipped; returns the global loss and the norm before clipping.

    The loss is the sum over targets divided by the targets of the *global* batch: a mean of the micro-batches' means
    would give a target in a padded sequence more weight than one in a full one.
    """
    total = torch.zeros((), device=t.world.device)
    if t.world.device.type == "cuda":
        batch = batch.pin()  # or the CPU would wait for each copy
    for part in batch.split(t.run.micro_batch):
        part = part.to(t.world.device)
        t.watchdog.heartbeat(t.state.step, "forward")
        loss = t.model(part.tokens_BT, part.targets_BT, part.positions_BT, part.documents_BT) / max(num_targets, 1)
        t.watchdog.heartbeat(t.state.step, "backward")
        loss.backward()
        total += loss.detach()
    norm = clip_by_global_norm(t.model.parameters(), t.run.config.optimizer.clip)
    # The one place of a step where the CPU waits for the device: the update is not made before the judgement.
    loss_and_norm = torch.stack([t.world.total(total), norm.to(total.dtype)]).tolist()
    return loss_and_norm[0], loss_and_norm[1]


def advance(t: Training, batch: TokenBatch, targets: dict[str, int]) -> None:
    """Move the state past a trained batch."""
    digest = update_digest(bytes.fromhex(t.state.digest), t.order.batch(batch.batch), t.order).hex()
    tokens = {name: t.state.tokens.get(name, 0) + count for name, count in targets.items()}
    t.state = replace(t.state, step=t.state.step + 1, batch=batch.batch + 1, tokens=tokens, digest=digest)


def evaluate(t: Training) -> None:
    """Measure the model on the validation sets, and let it write samples."""

    def heartbeat() -> None:
        t.watchdog.heartbeat(t.state.step, "evaluate")

    heartbeat()
    with t.measure.speed.other_work():
        scores = t.measure.validation(t.model, heartbeat)
        samples = t.measure.samples(t.model, t.state.step, heartbeat)
        t.log.evaluated(t.state, t.order, scores, samples)


# ---------------------------------------------------------------- spikes


def skip_batch(t: Training, batch: TokenBatch, verdict: Verdict, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
    """Skip a batch whose gradients must not reach the weights, or go back to before the damage.

    Raises TrainingFailed when more were skipped than `spikes.most`.
    """
    t.optimizers.zero_grad()
    options, before = t.run.config.spikes, len(t.state.skipped)
    if before >= options.most:
        raise TrainingFailed(
            f"step {t.state.step}: {verdict.reason}, and {before} batches were skipped already (spikes.most="
            f"{options.most}): lower the learning rate, or look at the documents that the report names"
        )
    if options.action == "rewind":
        return rewind(t, batch.batch)
    t.state = t.state.skip([batch.batch])
    t.log.skipped(t.state.step, batch.batch, verdict.reason)
    return batches


def rewind(t: Training, spike: int) -> Iterator[TokenBatch]:
    """Load the newest valid checkpoint, and skip the batches from `spikes.before` ahead of the spike up to it."""
    now = t.state
    found = restore(t)
    assert found is not None, "a run that may rewind saves at its start"
    batches = range(max(t.state.batch, spike - t.run.config.spikes.before), spike + 1)
    t.state = replace(t.state.skip([*now.skipped, *batches]), rewinds=now.rewinds + 1, lost=now.lost)
    t.checkpoints.abandon(t.state.step)
    t.log.rewound(t.state, found, batches)
    reopen_stream(t)
    return iter(t.stream)


# ---------------------------------------------------------------- checkpoints


def save(t: Training) -> None:
    """Begin a checkpoint; the run goes on while it is written. Raises CheckpointError when the one before failed.

    Raises TrainingFailed for weights that an update has made infinite or NaN: nothing would mend them.
    """
    wait(t)
    if t.world.add([int(not torch.stack([local_part(p).isfinite().all() for p in t.model.parameters()]).all())])[0]:
        raise TrainingFailed(
            f"after {t.state.step} steps there are weights that are not finite, and no checkpoint is written of them: "
            "lower optimizer.learning_rate and start again; the run goes on from the checkpoint before"
        )
    phases = t.order.plan(t.state.batch)
    plan = t.order.plan_digest(t.state.batch)
    t.state = replace(t.state, spikes=t.spikes.state_dict(), plan=plan, phases=phases)
    t.checkpoints.save(t.state.step, tensors_of(t.model, t.optimizers), t.state.to_json())


def wait(t: Training) -> None:
    """Wait until the checkpoint in hand is complete. Raises CheckpointError when it failed."""
    t.watchdog.heartbeat(t.state.step, "checkpoint")
    t.log.saved(t.checkpoints.wait())


def restore(t: Training, step: int | None = None) -> Loaded | None:
    """Load the newest valid checkpoint, or that of `step`; None: there is none. Raises ValueError for another run's."""
    wait(t)
    found = t.checkpoints.load_newest(tensors_of(t.model, t.optimizers), lambda extra, path: fits(t, extra, path), step)
    if found is not None:
        t.state = replace(RunState.from_json(found.extra), settings=first_state(t.run).settings)
        t.spikes.load_state_dict(t.state.spikes)
    return found


def branch(t: Training, step: int) -> Loaded | None:
    """Load the checkpoint of `step` and abandon those after it, once: a restarted run goes on along its branch."""
    found = restore(t)
    if found is None or t.state.branched_from != step:
        found = restore(t, step)
        t.checkpoints.abandon(step)
        t.log.line(f"the checkpoints after step {step:,} are abandoned: they are deleted at the next save")
        t.state = replace(t.state, branched_from=step)
    return found


def fits(t: Training, extra: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError when a checkpoint is of another model, dataset or order."""
    check_fits(RunState.from_json(extra), first_state(t.run), t.order, path)


def reopen_stream(t: Training) -> None:
    """Point order and stream at the state."""
    t.stream.close()
    t.order = t.run.order(t.state.skipped)
    t.stream = open_stream(t.run, t.world, t.state)


def open_stream(run: Resolved, world: World, state: RunState) -> TokenStream:
    """Open this rank's batches from the state on."""
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


def finish(t: Training, cause: str) -> int:
    """Write the last checkpoint, and log what ended the run: its `steps`, its `data` or a `signal`."""
    if cause == "data" and not t.run.evaluation_due(t.state.step):
        evaluate(t)
    if t.checkpoints.newest_step != t.state.step:
        save(t)
    wait(t)
    t.log.ended(t.state, cause)
    if cause == "signal" and t.signals.requeue and t.world.is_main:
        t.log.line(requeue())
    return 0


# ---------------------------------------------------------------- around the run


@contextlib.contextmanager
def _only_run(config: Config, world: World) -> Iterator[None]:
    """Hold the lock on the run's folder, on rank 0. Raises StorageError when another run works there."""
    if not world.is_main:
        yield
        return
    with writer_lock(config.output):
        if config.checkpoint.uri is not None:
            claim(config.checkpoint.uri, config.name, config.output)
        yield


class _CallableModule(types.ModuleType):
    """`from trainer import train` and `import trainer.train` name one thing: this module, which can be called."""

    def __call__(self, config: Config, step: int | None = None) -> int:
        return train(config, step)


sys.modules[__name__].__class__ = _CallableModule
