"""Ctrl-C, as a terminal sends it: to the driver and to its workers at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.runtime import sample_pipeline
from tests.runtime.test_runners import ROOT, runs, wait_for

SCRIPT = """
import sys
from pipeline.runtime.interrupt import interrupt_quietly
from pipeline.runtime.quiet import quiet_beam
quiet_beam()
interrupt_quietly()
from pipeline.runtime.options import runner
from tests.runtime import sample_pipeline
try:
    sample_pipeline.run(runner(workers=2), sys.argv[1], num_tasks=1000, seconds=0.1)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def test_an_interrupt_ends_driver_and_workers_with_one_word(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: len(sample_pipeline.processes(str(tmp_path))) == 2, lambda: driver.poll() is None)
        workers = list(sample_pipeline.processes(str(tmp_path)))
        os.killpg(driver.pid, signal.SIGINT)
        assert driver.communicate(timeout=60)[1] == "interrupted\n"
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not any(map(runs, workers)), seconds=30)
