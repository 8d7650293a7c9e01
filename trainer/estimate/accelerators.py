"""What an accelerator can do: peak FLOP/s in bf16, power and memory, by the name that the driver gives it.

A device that is not in the table has no peak: no MFU, no time and no energy are shown for it, never a guess.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEVICES", "Device", "find_device", "host_memory"]

TERA = 10**12
GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """One model of accelerator, from its maker's data sheet."""

    name: str
    flops_per_second: float  # bf16, dense: data sheets print twice that, "with sparsity"
    watts: float  # the board's power limit (TDP), the most that it draws; host and cooling come on top
    memory_bytes: int
    pattern: str  # of the driver's whole name, and of the short name that people write


# Whole names, because their beginnings lie: an H200 is no H20, an "H100 80GB HBM3 MIG 1g.10gb" is a seventh of an H100.
DEVICES = (
    Device("A100 SXM 40GB", 312 * TERA, 400, 40 * GIB, r"(NVIDIA )?A100-SXM4-40GB|A100 SXM 40GB"),
    Device("A100 SXM 80GB", 312 * TERA, 400, 80 * GIB, r"(NVIDIA )?A100-SXM4-80GB|A100( SXM( 80GB)?)?"),
    Device("A100 PCIe 40GB", 312 * TERA, 250, 40 * GIB, r"(NVIDIA )?A100-PCIE-40GB|A100 PCIe 40GB"),
    Device("A100 PCIe 80GB", 312 * TERA, 300, 80 * GIB, r"(NVIDIA )?A100 80GB PCIe|A100 PCIe( 80GB)?"),
    Device("H100 SXM", 989 * TERA, 700, 80 * GIB, r"(NVIDIA )?H100 80GB HBM3|(NVIDIA )?H100( SXM5?)?"),
    Device("H100 NVL", 835 * TERA, 400, 94 * GIB, r"(NVIDIA )?H100 NVL"),
    Device("H100 PCIe", 756 * TERA, 350, 80 * GIB, r"(NVIDIA )?H100 PCIe"),
    Device("H200", 989 * TERA, 700, 141 * GIB, r"(NVIDIA )?H200( SXM)?"),
    Device("B200", 2250 * TERA, 1000, 180 * GIB, r"(NVIDIA )?B200"),
    Device("MI300X", 1307 * TERA, 750, 192 * GIB, r"(AMD )?(Instinct )?MI300X( OAM)?"),
)


def find_device(name: str) -> Device | None:
    """The device of a name as `torch.cuda.get_device_name` or a person writes it; None when it is not known."""
    words = " ".join(name.split())
    return next((device for device in DEVICES if re.fullmatch(device.pattern, words, re.IGNORECASE)), None)


def host_memory(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process may have of the machine's memory: all there is, or the least limit of its cgroups."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        for line in Path(groups).read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            # Version 1 has a tree for each controller, version 2 one for all.
            folder, name = ("/memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            group = Path(f"{root}{folder}{path}")
            for each in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # no limit is a word
                    limits.append(int((each / name).read_text()))
    return min(limits)
