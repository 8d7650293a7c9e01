"""What killed workers left is removed when the next driver starts, and nothing that another driver needs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.ingest.receipts import Receipt
from pipeline.ingest.work_cleanup import swept_work
from schemas.local_files import unfinished_name
from schemas.storage import StorageError
from tests.servers import ROOT

OLD = time.time() - 25 * 3600


def put(path: Path, data: bytes = b"x", modified: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if modified:
        os.utime(path, (modified, modified))
    return path


def receipt(work: Path, part: str) -> None:
    name = part.partition(".")[0]
    made = Receipt("k", 0, True, "web", f"parts/{part}", 1, 1, 1, 1, "0", ())
    put(work / "receipts" / f"{name}.json", made.to_json())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".lock", "work/.lock"}


def test_half_written_files_go_from_work_and_dataset(tmp_path: Path) -> None:
    put(tmp_path / "shards" / unfinished_name("a.arrow", "12"))
    put(tmp_path / "work" / "parts" / unfinished_name("b.arrow", "34"))
    kept = {"shards/a.arrow", "shards/notes.unfinished", "manifest.json"}
    for name in kept:
        put(tmp_path / name)
    with swept_work(str(tmp_path / "work"), str(tmp_path)):
        assert files(tmp_path) == kept


def test_of_a_parts_attempts_the_one_with_the_receipt_stays(tmp_path: Path) -> None:
    for attempt in ("aa", "bb", "cc"):
        put(tmp_path / "parts" / f"key-000.{attempt}.arrow")
    receipt(tmp_path, "key-000.bb.arrow")
    with swept_work(str(tmp_path), "s3://bucket/dataset"):
        assert files(tmp_path) == {"parts/key-000.bb.arrow", "receipts/key-000.json"}


def test_an_attempt_without_a_receipt_goes_when_it_is_a_day_old(tmp_path: Path) -> None:
    put(tmp_path / "parts" / "key-000.new.arrow")
    put(tmp_path / "parts" / "key-000.old.arrow", modified=OLD)
    put(tmp_path / "parts" / "key-001.old.arrow", modified=OLD)
    put(tmp_path / "receipts" / "key-001.json", b"broken")
    with swept_work(str(tmp_path), str(tmp_path / "dataset")):
        assert files(tmp_path) == {"parts/key-000.new.arrow", "receipts/key-001.json"}


def test_work_that_another_driver_shares_is_left_alone_and_its_own_dataset_is_swept(tmp_path: Path) -> None:
    work, first, second = tmp_path / "work", tmp_path / "first", tmp_path / "second"
    with swept_work(str(work), str(first)):
        running = put(work / "parts" / unfinished_name("b.arrow", "34"))
        left = put(second / "shards" / unfinished_name("a.arrow", "12"))
        with swept_work(str(work), str(second)):
            assert running.exists()
            assert not left.exists()
        with swept_work(str(work), str(second)):
            assert running.exists()
    with swept_work(str(work), str(second)):
        assert not running.exists()


def test_work_inside_a_dataset_that_a_killed_driver_used_is_swept(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pipeline.ingest.work_cleanup import swept_work\n"
        "with swept_work(sys.argv[1], sys.argv[2]): print('locked', flush=True); time.sleep(100)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "work"), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"locked\n"
        left = put(tmp_path / "work" / "parts" / unfinished_name("b.arrow", "34"))
        with swept_work(str(tmp_path / "work"), str(tmp_path)):
            assert left.exists()
        driver.kill()
    with swept_work(str(tmp_path / "work"), str(tmp_path)):
        assert not left.exists()


def test_a_command_that_only_looks_sweeps_nothing_and_makes_no_folder(tmp_path: Path) -> None:
    with swept_work(str(tmp_path / "work"), str(tmp_path), dry=True):
        assert not (tmp_path / "work").exists()
    left = put(tmp_path / "work" / "parts" / unfinished_name("b.arrow", "34"))
    with swept_work(str(tmp_path / "work"), str(tmp_path), dry=True):
        assert left.exists()
        # It reads and writes there: who starts now must leave that alone.
        with swept_work(str(tmp_path / "work"), str(tmp_path)):
            assert left.exists()


def test_a_work_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    put(tmp_path / "file")
    with (
        pytest.raises(StorageError, match=r"file/work: no work folder can be made there \(Not a directory\)"),
        swept_work(str(tmp_path / "file" / "work"), "s3://bucket/dataset"),
    ):
        pass
