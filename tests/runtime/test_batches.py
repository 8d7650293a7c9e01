"""Record batches between workers: as Arrow streams, a slice without its parent."""

import pyarrow as pa
import pytest
from apache_beam.coders import registry

from pipeline.runtime.batches import RecordBatchCoder

BATCH = pa.record_batch({"n": pa.array([1, None, 3]), "text": pa.array(["a", "", None], pa.large_string())})


@pytest.mark.parametrize(
    "batch", [BATCH, BATCH.slice(1, 2), BATCH.slice(0, 0), pa.record_batch({"empty": pa.array([], pa.int8())})]
)
def test_a_batch_comes_back_with_its_schema(batch):
    coder = RecordBatchCoder()
    found = coder.decode(coder.encode(batch))
    assert found.equals(batch)
    assert found.schema.equals(batch.schema, check_metadata=True)


def test_a_slice_does_not_ship_its_parent():
    parent = pa.record_batch({"n": pa.array(range(100_000))})
    assert len(RecordBatchCoder().encode(parent.slice(500, 10))) < 1000


def test_beam_takes_this_coder_for_batches_and_not_for_keys():
    coder = registry.get_coder(pa.RecordBatch)
    assert coder == RecordBatchCoder()
    assert not coder.is_deterministic()
