"""One driver at a time on a dataset."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.lock import writer_lock
from schemas.storage import StorageError

HOLD = """
import sys, time
from schemas.lock import writer_lock
with writer_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_told_of_the_first_and_a_killed_one_leaves_nothing_behind(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=rf"another run \(process {holder.pid}\)"), writer_lock(str(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.wait()
    with writer_lock(str(tmp_path)):
        pass


def test_a_bucket_has_no_lock_file() -> None:
    with writer_lock("s3://bucket/dataset"):
        pass


def test_a_run_that_ends_takes_its_lock_file_along(tmp_path: Path) -> None:
    def interrupted() -> None:
        with writer_lock(str(tmp_path)):
            assert (tmp_path / ".lock").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_its_holder_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = fcntl.flock, tmp_path / ".lock"

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()  # by the holder, just before it frees the lock
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with writer_lock(str(tmp_path)):
        assert path.exists()
        with pytest.raises(StorageError, match="another run"), writer_lock(str(tmp_path)):
            pass
