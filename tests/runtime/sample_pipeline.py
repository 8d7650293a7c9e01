"""A pipeline of the shape of the real ones, for trying runners: tasks, packed keys, one file a group."""

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam

from schemas import storage

NUM_KEYS = 4


class PackTask(beam.DoFn):
    """Yield a task's numbers, packed many to an element by key, and record which process did it."""

    def __init__(self, output: str, seconds: float) -> None:
        self._output, self._seconds = output, seconds

    def process(self, task: int) -> Iterator[tuple[int, bytes]]:
        spend(self._seconds)
        storage.write(storage.join(self._output, "tasks", f"{task}-{os.getpid()}"), b"")
        for key in range(NUM_KEYS):
            yield key, struct.pack("<8Q", *(task * 1000 + key + NUM_KEYS * i for i in range(8)))


class WriteGroup(beam.DoFn):
    """Write a key's numbers, sorted, so that no order of arrival shows."""

    def __init__(self, output: str) -> None:
        self._output = output

    def process(self, group: tuple[int, Iterable[bytes]]) -> None:
        key, packed = group
        numbers = sorted(number for piece in packed for number in struct.unpack("<8Q", piece))
        storage.write(storage.join(self._output, "groups", str(key)), " ".join(map(str, numbers)).encode())


def spend(seconds: float) -> None:
    """Work for some CPU time."""
    end = os.times().user + seconds
    while os.times().user < end:
        sum(range(1000))


def run(new_pipeline: Callable[[], beam.Pipeline], output: str, num_tasks: int = 8, seconds: float = 0.0) -> None:
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | "ListTasks" >> beam.Create(range(num_tasks), reshuffle=False)
            | "SpreadTasks" >> beam.Reshuffle()
            | "PackTasks" >> beam.ParDo(PackTask(output, seconds)).with_output_types(tuple[int, bytes])
            | "GroupNumbers" >> beam.GroupByKey()
            | "WriteGroups" >> beam.ParDo(WriteGroup(output))
        )


def expected(num_tasks: int = 8) -> dict[str, bytes]:
    """Name and content of the files that `run` writes."""
    return {
        str(key): " ".join(
            str(task * 1000 + key + NUM_KEYS * i) for task in range(num_tasks) for i in range(8)
        ).encode()
        for key in range(NUM_KEYS)
    }


def written(output: str) -> dict[str, bytes]:
    """Name and content of the files that are there."""
    files = storage.list_files(storage.join(output, "groups"))
    return {stat.uri.rpartition("/")[2]: storage.read(stat.uri) for stat in files}


def processes(output: str) -> dict[int, int]:
    """Tasks done by each process, repeated ones too."""
    files = storage.list_files(storage.join(output, "tasks"))
    return dict(Counter(int(stat.uri.rpartition("-")[2]) for stat in files))
