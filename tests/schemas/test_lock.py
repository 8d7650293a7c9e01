"""One driver at a time on a dataset."""

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
