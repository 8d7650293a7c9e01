"""Seconds that a job costs on each runner before it does anything: a pipeline of eight empty tasks.

.venv/bin/python -m tests.bench.bench_runners          after `make tools`
"""

import sys
import tempfile
import time
from pathlib import Path

from deploy.flink.cluster import Cluster
from pipeline.runtime.options import runner
from pipeline.runtime.quiet import quiet_beam
from tests.runtime import sample_pipeline
from tests.servers import BIN, free_port, serve


def main() -> int:
    quiet_beam()
    measure("this process", [], 1)
    measure("2 local processes", [], 2)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [str(BIN / "prism"), f"--job_port={port}", f"--web_port={free_port()}", "--serve_http=false"]
        with serve(command, port, Path(folder) / "log"):
            measure("Prism", ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"])
        measure("Flink in one Java process", ["--runner=FlinkRunner"], 2)
        cluster = Cluster(Path(folder) / "flink")
        try:
            measure("Flink cluster", cluster.start(2))
        finally:
            cluster.stop()
    return 0


def measure(what: str, beam_options: list[str], workers: int | None = None) -> None:
    """The better of two."""
    times = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as output:
            started = time.perf_counter()
            sample_pipeline.run(runner(beam_options, workers), output)
            times.append(time.perf_counter() - started)
            assert sample_pipeline.written(output) == sample_pipeline.expected()
    print(f"{what:28} {min(times):6.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
