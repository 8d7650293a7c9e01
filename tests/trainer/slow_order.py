"""The order of samples once more, written straight from the contract's text: explicit lists, one sample at a time.

Pure Python and slow; it shares nothing with the trainer but the keys' bytes as the contract gives them. What the text
leaves open is read as the docstrings here say.
"""

import hashlib
import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

MASK = 2**64 - 1
G = 0x9E3779B97F4A7C15
M = 65_536

Row = tuple[bytes, int, bool, int, bytes, int]  # name, epoch, carry_over, place, sha256, row


@dataclass
class SlowPhase:
    """A batch_order.Phase with plain values: `shards` is {name: {sha256: rows}} for this phase's cut."""

    start: int
    global_batch: int
    cut: tuple[int, str]  # sequence length, packing
    weights: dict[str, str]
    shards: dict[str, dict[bytes, int]]
    generation: int  # equal numbers, equal shards
    replaces: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    max_epochs: dict[str, str] = field(default_factory=dict)
    at_cap: str = "redistribute"

    def weight(self, name: str) -> Fraction:
        return Fraction(self.weights[name]) / sum(Fraction(w) for w in self.weights.values())


def mix64(z: int) -> int:
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def make_key(seed: int, *fields: int | str) -> int:
    data = b"order-1\0" + seed.to_bytes(8, "little")
    for value in fields:
        if isinstance(value, str):
            data += b"s" + len(value.encode()).to_bytes(4, "little") + value.encode()
        else:
            data += b"i" + value.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def permuted(x: int, size: int, k: int) -> int:
    h = max(3, math.ceil((size - 1).bit_length() / 2))
    while True:
        a, b = x >> h, x & (2**h - 1)
        for r in range(6):
            a, b = b, a ^ (mix64(b ^ mix64((k + (r + 1) * G) & MASK)) & (2**h - 1))
        x = a << h | b
        if x < size:
            return x


def source_cycle(seed: int, name: str, start: int, number: int, quota: int) -> Iterator[tuple[int, bytes, int]]:
    """A source's (rank key, name, j) in a cycle, which ascend."""
    k = make_key(seed, "cycle", name, start, number)
    for j in range(quota):
        yield ((j << 32) + (mix64((k + (j + 1) * G) & MASK) >> 32)) // quota, name.encode(), j


def mixture(seed: int, start: int, quotas: dict[str, int]) -> Iterator[str]:
    """The source of each sample of a segment."""
    for number in itertools.count():
        for _, name, _ in heapq.merge(*(source_cycle(seed, n, start, number, m) for n, m in quotas.items())):
            yield name.decode()


def quotas_of(weights: dict[str, Fraction]) -> dict[str, int]:
    total = sum(weights.values())
    exact = {name: weights[name] / total * M for name in sorted(weights, key=str.encode)}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: (-(exact[name] % 1), name.encode()))[: M - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


class SlowSource:
    """One source: the rows of the running epoch that are still to come, laid out in full."""

    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.name = seed, name
        self.epoch, self.cut = 0, -1
        self.samples = 0
        self.shards: dict[bytes, int] = {}
        self.carry_over: list[tuple[int, bytes, int]] = []
        self.pool: list[bytes] = []
        self.todo: list[tuple[bool, int, tuple[int, bytes, int]]] | None = None  # (carry_over, window, row)
        self.begun: set[bytes] = set()
        self.counted = 0  # rows of the epoch that are read, left out or retired
        self.last: int | None = None  # window of the last row taken; -1: the carry_over

    def remaining(self) -> int:
        return len(self.carry_over) + sum(self.shards[s] for s in self.pool) if self.todo is None else len(self.todo)

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.cut, self.carry_over, self.pool, self.todo = epoch, -1, [], list(self.shards), None
        self.begun, self.counted, self.last = set(), 0, None

    def lay_out(self, weight: Fraction) -> None:
        """Windows of the pool; the weight is that of the phase which takes the first sample."""
        k = make_key(self.seed, "shards", self.name, self.epoch, self.cut)
        order = sorted(self.pool, key=lambda sha: (mix64(int.from_bytes(sha[:8], "little") ^ k), sha))
        n = len(order)
        num_windows = math.ceil(n / max(4, math.floor(64 * weight + Fraction(1, 2))))
        self.todo = [(True, -1, row) for row in self.carry_over]
        self.windows = {-1: list(dict.fromkeys(sha for _, sha, _ in self.carry_over))}
        for w in range(num_windows):
            first, last = w * n // num_windows, (w + 1) * n // num_windows
            rows = [
                (place, order[place], row) for place in range(first, last) for row in range(self.shards[order[place]])
            ]
            key = make_key(self.seed, "rows", self.name, self.epoch, self.cut, w)
            self.todo += [(False, w, rows[permuted(x, len(rows), key)]) for x in range(len(rows))]
            self.windows[w] = order[first:last]

    def take(self, weight: Fraction) -> Row:
        if self.todo == []:
            self.start_epoch(self.epoch + 1)
        if self.todo is None:
            self.lay_out(weight)
        carry_over, self.last, (place, sha, row) = self.todo.pop(0)
        if not carry_over:
            self.begun |= set(self.windows[self.last])
        self.samples += 1
        self.counted += 1
        return self.name.encode(), self.epoch, not carry_over, place, sha, row

    def rewindow(
        self, batch: int, shards: dict[bytes, int], same_cut: bool, replaces: dict[bytes, tuple[bytes, ...]]
    ) -> None:
        old_remaining = self.remaining()
        if old_remaining == 0 and self.counted:
            self.epoch += 1  # it has just ended
            self.begun = set()
        before, self.shards = self.shards, shards
        if not self.begun:
            return self.start_epoch(self.epoch)
        if self.todo is None:  # nothing was taken since the last cut
            running, ahead = self.carry_over, list(self.pool)
        else:
            running = [row for _, w, row in self.todo if w == self.last]
            ahead = [sha for w, window in self.windows.items() if w > self.last for sha in window]
        self.carry_over = [row for row in running if row[1] in shards] if same_cut else []
        self.pool = [sha for sha in shards if sha not in self.begun and not stands_for(sha, self.begun, replaces)]
        kept_rows = len(self.carry_over) + sum(before[sha] for sha in ahead if sha in shards)
        if not self.carry_over and not self.pool:
            return self.start_epoch(self.epoch + 1)
        self.counted += old_remaining - kept_rows
        self.cut, self.todo, self.last = batch, None, None

    def room(self, cap: Fraction) -> int:
        """Samples until the cap; negative: it is past. Rows left out or retired count as read, at their own length."""
        epoch, counted, remaining, rows = self.epoch, self.counted, self.remaining(), sum(self.shards.values())
        if remaining == 0 and counted:
            epoch, counted, remaining = epoch + 1, 0, rows
        whole, part = math.floor(cap), cap - math.floor(cap)
        if whole < epoch:
            return -1
        if whole == epoch:
            return math.floor(part * (counted + remaining)) - counted
        return remaining + (whole - epoch - 1) * rows + math.floor(part * rows)


def stands_for(sha: bytes, begun: set[bytes], replaces: dict[bytes, tuple[bytes, ...]]) -> bool:
    """Whether a shard replaces a begun one, at any remove."""
    return any(old in begun or stands_for(old, begun, replaces) for old in replaces.get(sha, ()))


def slow_run(seed: int, phases: list[SlowPhase], batches: int) -> Iterator[list[Row]]:
    """Batches as lists of (name, epoch, re-window or whole, place, sha256, row); ends where the run does."""
    names = sorted({name for phase in phases for name in phase.shards}, key=str.encode)
    sources = {name: SlowSource(seed, name) for name in names}
    replaces: dict[bytes, tuple[bytes, ...]] = {}
    phase, mixed, active = phases[0], iter(()), []
    for batch in range(batches):
        starting = [p for p in phases if p.start == batch]
        if starting:
            before, phase = phase, starting[0]
            replaces |= phase.replaces
            if batch == 0 or (before.cut, before.generation) != (phase.cut, phase.generation):
                for name, source in sources.items():
                    rows = {sha: n for sha, n in phase.shards.get(name, {}).items() if n}
                    source.rewindow(batch, rows, before.cut == phase.cut, replaces)
            active = sorted(phase.weights, key=str.encode)
            quotas = quotas_of({name: phase.weight(name) for name in active})
            mixed = mixture(seed, batch, quotas)
        taken = list(itertools.islice(mixed, phase.global_batch))
        while True:
            over = [
                name
                for name in active
                if name in phase.max_epochs and taken.count(name) > sources[name].room(Fraction(phase.max_epochs[name]))
            ]
            if not over:
                break
            active = [name for name in active if name not in over]
            if phase.at_cap == "stop" or not active:
                return
            quotas = quotas_of({name: phase.weight(name) for name in active})
            if any(sum(sources[n].shards.values()) * M < m * phase.global_batch for n, m in quotas.items()):
                return
            mixed = mixture(seed, batch, quotas)
            taken = list(itertools.islice(mixed, phase.global_batch))
        yield sorted(sources[name].take(phase.weight(name)) for name in taken)
