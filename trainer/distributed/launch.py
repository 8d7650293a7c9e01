"""How this process was started, read from its environment: by torchrun, by `srun`, by hand, or alone."""

import os
import re
from collections.abc import Mapping, MutableMapping

__all__ = ["adopt_slurm", "is_launched", "is_reporting", "slurm_variables"]

FIRST_PORT, PORTS = 20_000, 20_000  # of the rendezvous of an `srun`, by the number of its job and step


def is_launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher gave this process a rank."""
    return "RANK" in environ


def is_reporting(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process writes what is written once, known before the processes have met."""
    return environ.get("RANK", "0") == "0"


def adopt_slurm(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take rank and address of a task that `srun` started without torchrun; leave every other process as it is.

    Raises ValueError for variables of Slurm without an address.
    """
    if not is_launched(environ) and int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        environ.update({name: environ.get(name, value) for name, value in slurm_variables(environ).items()})


def slurm_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what torchrun would have set, from the variables of an `srun` step.

    SLURM_STEP_NUM_TASKS is set by `srun` alone: the batch script itself, which has SLURM_NTASKS, is no task.
    """
    node = int(environ.get("SLURM_NODEID", "0"))
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        raise ValueError("srun set SLURM_STEP_NUM_TASKS and no SLURM_STEP_NODELIST: set MASTER_ADDR and RANK yourself")
    job = int(environ.get("SLURM_JOB_ID", "0")) * 8 + int(environ.get("SLURM_STEP_ID", "0"))
    tasks = tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", environ["SLURM_STEP_NUM_TASKS"]))
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(tasks[min(node, len(tasks) - 1)]),
        "MASTER_ADDR": first_node(nodes),
        "MASTER_PORT": str(FIRST_PORT + job % PORTS),
    }


def first_node(nodes: str) -> str:
    """Return the first name of a node list: `gpu[07-12,15],cpu3` gives `gpu07`."""
    found = re.match(r"([^,\[]*)(?:\[([0-9]+)[^\]]*\]([^,\[]*))?", nodes)
    assert found is not None
    return "".join(part or "" for part in found.groups())


def tasks_per_node(text: str) -> list[int]:
    """Return the tasks of each node: `4(x2),3` gives 4, 4, 3."""
    counts = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={text}: expected numbers of tasks, as in 4(x2),3")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
