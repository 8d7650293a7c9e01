"""A run whose work folder was damaged after its last step and before its commit: what does the next run make?

    python tests/bench/damaged_work.py RECIPE

One file of each kind is deleted, cut, or has a bit or a digit changed, one damage a run. Prints each run that did not
end with the digest of the undamaged one, and exits 1 when one made another dataset or left a traceback.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

GRISTMILL = [sys.executable, "-m", "pipeline"]
DIGITS = b"012345678"


def main() -> int:
    """Damage everything once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recipe")
    recipe = parser.parse_args().recipe
    with tempfile.TemporaryDirectory() as folder:
        whole, tried = Path(folder, "whole"), Path(folder, "tried")
        _, wanted, _ = run(recipe, whole)
        outcomes = [outcome(recipe, whole, tried, file, name, wanted) for file in kinds(whole) for name in DAMAGES]
    counts = {each: outcomes.count(each) for each in ("same", "refused", "WRONG")}
    print(", ".join(f"{count} {each}" for each, count in counts.items()))
    return 1 if counts["WRONG"] else 0


def outcome(recipe: str, whole: Path, tried: Path, file: Path, name: str, wanted: str) -> str:
    """What comes of one damage: the same digest, one message, or what must not be."""
    shutil.rmtree(tried, ignore_errors=True)
    shutil.copytree(whole, tried)
    shutil.rmtree(tried / "manifest")
    (tried / "manifest.json").unlink()
    DAMAGES[name](tried / file)
    code, digest, said = run(recipe, tried)
    if code == 0 and digest == wanted:
        return "same"
    print(f"{file} {name}: {said.splitlines()[-1]}", flush=True)
    return "refused" if code != 0 and "Traceback" not in said else "WRONG"


def run(recipe: str, output: Path) -> tuple[int, str, str]:
    """Exit code, generation digest and what was said."""
    command = [*GRISTMILL, "run", recipe, "--output", str(output), "--quiet", "--no-report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"^digest\s+(\w+)$", done.stdout + done.stderr, re.MULTILINE)
    return done.returncode, found[1] if found else "", done.stderr or done.stdout


def kinds(dataset: Path) -> list[Path]:
    """One file of the work folder of each kind: names alike but for numbers and digests."""
    found: dict[str, Path] = {}
    for path in sorted((dataset / "work").rglob("*")):
        if path.is_file() and path.name != ".lock":
            file = path.relative_to(dataset)
            found.setdefault(re.sub(r"[0-9a-f]{8,}|\d+(?=\.)", "*", str(file)), file)
    return list(found.values())


def change(path: Path, place: Callable[[bytes], int], mask: Callable[[int], int]) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    at = place(data)
    data[at] = mask(data[at])
    path.write_bytes(data)


def _a_digit(data: bytes) -> int:
    places = [at for at, byte in enumerate(data) if byte in DIGITS]
    return places[len(places) * 2 // 3]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3]) and None,
    "a bit in the middle": lambda path: change(path, lambda data: len(data) // 2, lambda byte: byte ^ 1),
    "a bit before it": lambda path: change(path, lambda data: len(data) * 3 // 10, lambda byte: byte ^ 1),
    "a digit": lambda path: change(path, _a_digit, lambda byte: byte + 1),
}


if __name__ == "__main__":
    sys.exit(main())
