"""Compiled code is cached where its sources name the folder, for every user, and a change of a helper is seen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import kernel_cache

ROOT = Path(__file__).resolve().parents[1]
HELPER = "from pipeline.numba_kernels import njit\n\n\n@njit(nogil=True)\ndef step(x):\n    return x + {step}\n"
KERNEL = """from pipeline.helper import step
from pipeline.numba_kernels import kernel, types


@kernel(types.int64(types.int64))
def run(x):
    return step(x)
"""
PROGRAM = "import logging; logging.basicConfig(format='%(message)s'); from pipeline.user import run; print(run(1))"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a `pipeline` of our own: what compiles, a kernel, and the helper that it calls."""
    folder = tmp_path / "code" / "pipeline"
    folder.mkdir(parents=True)
    for name in ("__init__", "kernel_digest", "numba_kernels"):
        shutil.copy(ROOT / "pipeline" / f"{name}.py", folder)
    (folder.parent / "schemas").mkdir()
    for name in ("__init__", "kernel_cache"):
        shutil.copy(ROOT / "schemas" / f"{name}.py", folder.parent / "schemas")
    (folder / "helper.py").write_text(HELPER.format(step=1))
    (folder / "user.py").write_text(KERNEL)
    return folder


def call(package: Path) -> tuple[str, list[str]]:
    """Call the kernel in a new process; return what it gives and the lines that were logged."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(package.parent),
        "TMPDIR": str(package.parent.parent),
        "HOME": "/dev/null",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


def test_a_changed_helper_is_compiled_anew_and_the_first_run_says_so_once(package: Path) -> None:
    first, lines = call(package)
    assert (first, len(lines)) == ("2", 1)
    assert lines[0].startswith("compiling functions for this machine, once, into ")
    assert call(package) == ("2", []), "the second run reads what the first compiled"
    (package / "helper.py").write_text(HELPER.format(step=50))
    changed, lines = call(package)
    assert (changed, len(lines)) == ("51", 1)
    (package / "helper.py").write_text(HELPER.format(step=1))
    assert call(package)[0] == "2"
    assert len(list((package.parent / "schemas" / "__pycache__").glob("kernels-*"))) == 2, "nothing was deleted"


def test_a_user_without_a_home_compiles_among_the_temporary_files_with_one_line(package: Path) -> None:
    (package.parent / "schemas" / "__pycache__").write_text("a file: not even root can make a folder there")
    first, lines = call(package)
    assert (first, len(lines)) == ("2", 1)
    assert f"gristmill-{os.getuid()}-kernels-" in lines[0]
    assert "neither the package nor a home can be written to" in lines[0]
    assert call(package) == ("2", []), "kept for the next run"


def test_code_that_another_user_could_have_left_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "gristmill-0-kernels"
    assert kernel_cache._is_ours(folder)
    folder.mkdir()
    folder.chmod(0o755)
    assert kernel_cache._is_ours(folder)
    folder.chmod(0o777)
    assert not kernel_cache._is_ours(folder)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert not kernel_cache._is_ours(link)
