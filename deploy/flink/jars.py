"""Fetch Flink and Beam's job server for it with Maven, and make the jar that Beam's Python SDK starts.

    python deploy/flink/jars.py            into .cache/flink (161 jars, 152 MB)

The job server's own jar holds nothing but a manifest: its class path names the jars beside it.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "flink"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
# Flink 1.19 reaches into these packages, which Java 17 keeps closed.
OPENED = [
    f"java.base/java.{package}"
    for package in ("lang", "util", "nio", "util.concurrent", "lang.reflect", "text", "time", "net")
]


def main() -> int:
    """Fetch and build; an existing folder of jars is completed."""
    for tool, package in (("java", "a Java runtime, 11 or 17"), ("mvn", "Maven")):
        if not shutil.which(tool):
            print(f"Flink needs {package}: {tool} is not on PATH. Install it, or use another runner.", file=sys.stderr)
            return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(HERE / "pom.xml"), COPY]
    fetched = subprocess.run([*command, f"-DoutputDirectory={CACHE / 'lib'}", "-DincludeScope=runtime"])
    if fetched.returncode:
        print("Maven could not fetch Flink's jars; its message stands above.", file=sys.stderr)
        return 1
    write_job_server(CACHE / "job-server.jar", sorted(path.name for path in (CACHE / "lib").glob("*.jar")))
    return 0


def write_job_server(path: Path, jars: list[str]) -> None:
    """The manifest-only jar beside `lib/`."""
    lines = [
        "Manifest-Version: 1.0",
        f"Main-Class: {MAIN}",
        f"Class-Path: {' '.join('lib/' + name for name in jars)}",
        f"Add-Opens: {' '.join(OPENED)}",
    ]
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "".join(map(_folded, lines)))


def _folded(line: str) -> str:
    """A manifest line holds at most 72 bytes with its end; the rest goes on after a space."""
    pieces = [line[:70]]
    pieces += [" " + line[start : start + 69] for start in range(70, len(line), 69)]
    return "".join(piece + "\r\n" for piece in pieces)


if __name__ == "__main__":
    sys.exit(main())
