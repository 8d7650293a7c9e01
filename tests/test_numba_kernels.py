"""Kernels wait for their first call, and a command starts without what it does not use."""

import subprocess
import sys

import numpy as np

from pipeline import numba_kernels
from pipeline.numba_kernels import kernel, types


def test_a_kernel_is_compiled_at_its_first_call_and_only_then(monkeypatch):
    compiled = []

    def counted(*arguments, **options):
        compiled.append(options)
        return lambda function: function

    monkeypatch.setattr(numba_kernels, "njit", counted)

    @kernel(types.int64(types.int64[::1]))
    def total(values):
        """The sum."""
        return values.sum()

    assert (total.__name__, total.__doc__, compiled) == ("total", "The sum.", [])
    assert [total(np.arange(4)), total(np.arange(5))] == [6, 10]
    assert compiled == [{"nogil": True, "cache": True}]


def test_a_command_starts_without_scipy_pandas_and_googles_clients():
    program = """
import sys
from pipeline.runtime.quiet import import_beam, without_pandas
without_pandas()
import_beam(["--runner=FlinkRunner"])
import numpy, pyarrow, pipeline.curate
pyarrow.array(numpy.zeros(2))
print(sorted({"scipy", "pandas", "google.cloud.storage", "google.auth"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
