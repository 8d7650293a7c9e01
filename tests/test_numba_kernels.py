"""Kernels wait for their first call, and hide nothing from the code of others."""

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


def test_nothing_is_hidden_from_the_signals_of_a_user():
    program = """
from pipeline.runtime.quiet import import_beam
import_beam(["--runner=FlinkRunner"])
import pipeline.curate
import google.auth, numba, numpy, pandas, pyarrow, scipy.linalg
assert pyarrow.array(pandas.Series([1, 2])).to_pylist() == [1, 2]
print(numba.njit(lambda a: numpy.linalg.det(a))(numpy.eye(2)), scipy.linalg.det(numpy.eye(2)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1.0", "1.0"], done.stderr
