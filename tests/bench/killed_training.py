"""A training run killed (`kill -9`, the whole process group) again and again, and the run never killed: one result.

    python tests/bench/killed_training.py CONFIG [KEY=VALUE ...] [--kills 20] [--ranks 1] [--seed 0]

The kills take turns: some time after the start, mostly before the first step; in a step, after a random number of more
steps; in one of the next checkpoints, up to --within seconds after it was begun. Prints where each struck; exits 1
unless every kill met a living run, weights, optimizers and state of the last checkpoints are equal bit by bit, and
nothing is left of the unfinished ones.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

ROOT = Path(__file__).parents[2]
MOMENTS = ("start", "step", "checkpoint")
ENDED = "after its end"


def main() -> int:
    """Train twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=0.3, help="of a checkpoint's begin, seconds (default: 0.3)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="killed-training-") as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        started = time.monotonic()
        with running(options, whole) as process:
            wait(process)
        seconds = time.monotonic() - started
        print(f"never killed: {seconds:.1f} s, {len(steps(whole))} steps, {len(folders(whole))} checkpoints kept")
        struck = Counter[str]()
        most, missed = max(1, len(steps(whole)) // options.kills), 0
        for number in range(options.kills):
            with running(options, killed) as process:
                where = strike(process, killed, MOMENTS[number % 3], chance, most, options.within)
            struck[where.split(":")[0]] += 1
            missed += where == ENDED
            print(f"kill {number + 1:2}  {where}", flush=True)
        with running(options, killed) as process:
            wait(process)
        resumed = [event["step"] for event in events(killed) if event["event"] == "resume"]
        print(f"struck: {dict(struck)}; resumed at steps {resumed}")
        faults = differences(whole, killed)
    faults += [f"{missed} kills came after the end: give the run more steps"] if missed else []
    print("\n".join(faults) or "weights, optimizers and state are equal, bit by bit")
    return 1 if faults else 0


@contextlib.contextmanager
def running(options: argparse.Namespace, output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The run as a process group of its own, which is gone in the end."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.ranks)]
    command = [sys.executable, *(torchrun if options.ranks > 1 else ())]
    log = output.with_suffix(".log").open("ab")
    process = subprocess.Popen(
        [*command, "-m", "trainer", options.config, f"output={output}", *options.changes],
        cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def wait(process: "subprocess.Popen[bytes]") -> None:
    """To the end of the run. Raises RuntimeError when it fails."""
    if code := process.wait():
        raise RuntimeError(f"the run ended with {code}")


def strike(
    process: "subprocess.Popen[bytes]",
    output: Path,
    moment: str,
    chance: random.Random,
    most: int,
    within: float,
) -> str:
    """Kill the group at its moment, `most` steps ahead at the latest but for checkpoints; what was going on."""
    begun, known = len(steps(output)), folders(output)
    if moment == "start":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 8))
    elif moment == "step":
        ahead = chance.randint(1, most)
        while len(steps(output)) < begun + ahead and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, within))
    else:
        wanted = chance.randint(1, 3)
        while wanted and process.poll() is None:
            if new := folders(output) - known:
                known, wanted = known | new, wanted - 1
            time.sleep(0.001)
        time.sleep(chance.uniform(0, within))
    ended = process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unfinished = [name for name in folders(output) if not (output / "checkpoints" / name / "complete.json").exists()]
    now = steps(output)
    if ended:
        return ENDED
    if unfinished:
        return f"in a checkpoint: {unfinished[0]} is not complete, last step {now[-1] if now else None}"
    return f"in a step: last step {now[-1]}" if len(now) > begun else "before a step: starting"


def folders(output: Path) -> set[str]:
    """Names of the attempts at checkpoints."""
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir(output / "checkpoints"))
    return set()


def events(output: Path) -> list[dict[str, Any]]:
    """What the run has recorded; a last line may be cut."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (output / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def steps(output: Path) -> list[int]:
    """The recorded steps, those done twice too."""
    return [event["step"] for event in events(output) if event["event"] == "step"]


def differences(whole: Path, killed: Path) -> list[str]:
    """What is not equal between the last checkpoints of two runs, and what should not be there."""
    tensors, states, faults = [], [], []
    for output in (whole, killed):
        newest = output / "checkpoints" / max(folders(output))
        states.append(json.loads((newest / "complete.json").read_bytes())["extra"])
        dcp_to_torch_save(newest, output / "whole.pt")
        tensors.append(dict(flat("", torch.load(output / "whole.pt"))))
        faults += [
            f"{output.name}: {name} is not complete"
            for name in folders(output)
            if not (output / "checkpoints" / name / "complete.json").exists()
        ]
    ours, theirs = tensors
    faults += [f"{name} is in one of them only" for name in ours.keys() ^ theirs.keys()]
    faults += [f"{name} differs" for name in ours.keys() & theirs.keys() if not same(ours[name], theirs[name])]
    faults += [f"state: {name} differs" for name in states[0] if states[0][name] != states[1].get(name)]
    print(f"compared: {len(ours)} tensors, {len(states[0])} parts of the state")
    recorded = [[event["loss"] for event in last_of_each_step(output)] for output in (whole, killed)]
    return faults if recorded[0] == recorded[1] else [*faults, "the recorded losses differ"]


def last_of_each_step(output: Path) -> list[dict[str, Any]]:
    """The record of each step as it was done last."""
    found = sorted((event for event in events(output) if event["event"] == "step"), key=lambda event: event["step"])
    return [list(group)[-1] for _, group in itertools.groupby(found, key=lambda event: event["step"])]


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dictionaries, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(f"{name}/{key}", inner)
    else:
        yield name, value


def same(ours: Any, theirs: Any) -> bool:
    """Equal bit by bit."""
    return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else bool(ours == theirs)


if __name__ == "__main__":
    sys.exit(main())
