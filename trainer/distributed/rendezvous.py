"""The store through which the processes of a run find each other, a new one for every start.

torchrun keeps one store over all its restarts, and gloo finds the addresses of the killed processes in it
(pytorch#135712): the first restart dies, the next one waits. Restart counts do not distinguish starts either, because
each agent counts its own. Here rank 0 opens a store of its own, and leaves its address on torchrun's. A rank that reads
the address of an earlier start finds nobody there, or a store with another mark, and reads again.
"""

import json
import os
import secrets
import socket
import time
from datetime import timedelta

import torch.distributed as dist

__all__ = ["meet"]

KEY = "gristmill/rendezvous"
LOOK = timedelta(seconds=2)  # for one try at an address
AGAIN_SECONDS = 0.2


def meet(rank: int, size: int, timeout: timedelta) -> tuple[dist.Store, tuple[str, int]]:
    """Return the store of this start, and its address. Raises RuntimeError when rank 0 is not found in time."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return dist.TCPStore(address, port, size, is_master=rank == 0, timeout=timeout), (address, port)
    board = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
    return _open(board, address, port, timeout) if rank == 0 else _find(board, timeout)


def _open(board: dist.Store, address: str, port: int, timeout: timedelta) -> tuple[dist.Store, tuple[str, int]]:
    """Open a store on a free port, and leave its address on torchrun's."""
    host = _own_address(address, port)
    store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
    mark = secrets.token_hex(8)
    store.set(KEY, mark)
    board.set(KEY, json.dumps([host, store.port, mark]))
    return store, (host, store.port)


def _find(board: dist.Store, timeout: timedelta) -> tuple[dist.Store, tuple[str, int]]:
    """Find the store that rank 0 of this start has opened."""
    until = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < until:
        host, port, mark = json.loads(board.get(KEY))
        store = _connect(host, port, mark)
        if store is not None:
            store.set_timeout(timeout)
            return store, (host, port)
        time.sleep(AGAIN_SECONDS)
    raise RuntimeError(
        f"rank 0 was not found in {timeout.total_seconds():.0f} s; the last address it gave is {host}:{port}"
    )


def _connect(host: str, port: int, mark: str) -> dist.Store | None:
    """Connect to a store; None where nobody listens, or one of another start."""
    try:
        # Without it torch logs the stack of its own failure to reach an earlier start.
        socket.create_connection((host, port), timeout=LOOK.total_seconds()).close()
        store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=LOOK)
        return store if store.get(KEY).decode() == mark else None
    except (OSError, dist.DistError):
        return None


def _own_address(address: str, port: int) -> str:
    """Return the address by which other nodes reach this one: that of the way to torchrun's store."""
    family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(place)  # sends nothing
        own = str(probe.getsockname()[0])
    # The store is on this machine, and a name of it may lead to the loopback here alone.
    return address if own.startswith("127.") or own == "::1" else own
