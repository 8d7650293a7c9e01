"""Rows of shards as tensors, against rows laid by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.manifest import DatasetError
from schemas.packing import place_documents
from tests.made_dataset import END_OF_TEXT, MadeDataset, made
from trainer.data.shard_rows import IGNORED, Layout, NarrowBatch, OpenShard, Wide, gather, pieces_of, widen

U16, U32 = np.dtype(np.uint16), np.dtype(np.uint32)
Row = tuple[list[int], list[int], list[int], list[int]]


def opened(data: MadeDataset, number: int = 0) -> OpenShard:
    row = data.shards[number].row
    return OpenShard(str(data.path(number)), np.dtype(data.token_type), row["tokens"])


def read(shard: OpenShard, rows: list[int], length: int, packing: str, mask: bool = True) -> Wide:
    """Rows of one shard, widened."""
    targets_BT = np.zeros((len(rows), length), shard.token_type)
    layout = Layout([shard])
    pieces = pieces_of(layout, np.zeros(len(rows), np.int64), np.array(rows, np.int64), length, packing)
    before_P = gather(layout, pieces, END_OF_TEXT, targets_BT)
    return widen(NarrowBatch(targets_BT, pieces.row_P, pieces.column_P, pieces.length_P, before_P), END_OF_TEXT, mask)


def by_hand(documents: list[list[int]], length: int, packing: str) -> list[Row]:
    """(inputs, targets, positions, documents) of every row of a shard, token by token."""
    return _windows(documents, length) if packing == "windows" else _packed(documents, length)


def _windows(documents: list[list[int]], length: int) -> list[Row]:
    stream = [(token, number) for number, document in enumerate(documents) for token in document]
    rows = []
    for start in range(0, len(stream) - length + 1, length):
        window = stream[start : start + length]
        targets, owners = [token for token, _ in window], [owner for _, owner in window]
        inputs = [stream[start - 1][0] if start else END_OF_TEXT, *targets[:-1]]
        rows.append((inputs, targets, *_masks(owners)))
    return rows


def _packed(documents: list[list[int]], length: int) -> list[Row]:
    pieces: dict[int, list[tuple[int, int, int]]] = {}
    placement = place_documents(np.array([len(document) for document in documents]), length)
    for document, offset, count, row in zip(*(column.tolist() for column in placement), strict=True):
        pieces.setdefault(row, []).append((document, offset, count))
    rows = []
    for row in range(len(pieces)):
        inputs, targets, owners = [], [], []
        for document, offset, count in pieces[row]:
            tokens = documents[document]
            targets += tokens[offset : offset + count]
            inputs += [tokens[offset - 1] if offset else END_OF_TEXT, *tokens[offset : offset + count - 1]]
            owners += [document] * count
        padding = length - len(targets)
        positions, numbers = _masks(owners)
        rows.append(
            (
                inputs + [END_OF_TEXT] * padding,
                targets + [IGNORED] * padding,
                positions + [0] * padding,
                numbers + [-1] * padding,
            )
        )
    return rows


def _masks(owners: list[int]) -> tuple[list[int], list[int]]:
    """Positions that restart, and document numbers that rise, where the owner changes."""
    positions: list[int] = []
    numbers: list[int] = []
    for i, owner in enumerate(owners):
        same = i > 0 and owners[i - 1] == owner
        positions.append(positions[-1] + 1 if same else 0)
        numbers.append((numbers[-1] if i else -1) + (not same))
    return positions, numbers


def rows_in(wide: Wide) -> list[Row]:
    assert wide.positions_BT is not None
    assert wide.documents_BT is not None
    return list(zip(*(array.tolist() for array in wide), strict=True))


def test_a_window_is_the_stream_of_tokens_shifted_by_one(tmp_path: Path) -> None:
    data = MadeDataset(tmp_path, batch_documents=1)  # every document in a record batch of its own
    data.add("web", [[1, 2, 0], [3, 0], [4, 5, 6, 7, 0], [8, 0]])
    wide = read(opened(data), [0, 2, 1], 4, "windows")
    assert wide.tokens_BT.tolist() == [[0, 1, 2, 0], [6, 7, 0, 8], [3, 0, 4, 5]]
    assert wide.targets_BT.tolist() == [[1, 2, 0, 3], [7, 0, 8, 0], [0, 4, 5, 6]]
    assert wide.positions_BT is not None
    assert wide.positions_BT.tolist() == [[0, 1, 2, 0], [0, 1, 0, 1], [0, 0, 1, 2]]
    assert wide.documents_BT is not None
    assert wide.documents_BT.tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


def test_a_packed_row_holds_whole_documents_and_padding_without_targets(tmp_path: Path) -> None:
    data = MadeDataset(tmp_path)
    data.add("web", [[1, 2, 3, 4, 5, 0], [6, 0], [7, 8, 0]])
    # Cut at 4: [1 2 3 4] alone; then [7 8 0]; [5 0] and [6 0] share a row.
    wide = read(opened(data), [0, 1, 2], 4, "documents")
    assert wide.targets_BT.tolist() == [[1, 2, 3, 4], [7, 8, 0, IGNORED], [5, 0, 6, 0]]
    assert wide.tokens_BT.tolist() == [[0, 1, 2, 3], [0, 7, 8, 0], [4, 5, 0, 6]]
    assert wide.positions_BT is not None
    assert wide.positions_BT.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 1]]
    assert wide.documents_BT is not None
    assert wide.documents_BT.tolist() == [[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 1]]


documents_of_tests = st.lists(
    st.lists(st.integers(1, 999), max_size=20).map(lambda ids: [*ids, END_OF_TEXT]), min_size=1
)


@settings(max_examples=60)
@given(documents_of_tests, st.integers(2, 12), st.integers(1, 4), st.sampled_from(["windows", "documents"]))
def test_every_row_is_what_the_law_says(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], length: int, batch: int, packing: str
) -> None:
    data = MadeDataset(tmp_path_factory.mktemp("tokens"), batch_documents=batch)
    data.add("web", documents)
    expected = by_hand(documents, length, packing)
    wide = read(opened(data), list(range(len(expected))), length, packing)
    assert rows_in(wide) == expected
    # Every token but those of the remainder is a target once.
    targets = sorted(wide.targets_BT[wide.targets_BT != IGNORED].tolist())
    stream = [token for document in documents for token in document]
    left_out = len(stream) % length if packing == "windows" else 0
    assert targets == sorted(stream[: len(stream) - left_out])


def test_without_a_mask_no_positions_are_made(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [64]})
    wide = read(opened(data), [0, 1], 16, "windows", mask=False)
    assert wide.positions_BT is None
    assert wide.documents_BT is None
    assert wide.targets_BT.reshape(-1).tolist() == data.stream_of(0)[:32].tolist()


def test_ids_above_65535_are_kept(tmp_path: Path) -> None:
    data = MadeDataset(tmp_path, vocab_size=100_000, token_type="uint32")
    data.add("web", [[70_000, 99_999, 0]])
    assert read(opened(data), [0], 3, "windows").targets_BT.tolist() == [[70_000, 99_999, 0]]


def test_no_rows_make_an_empty_batch(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [64]})
    assert read(opened(data), [], 16, "windows").tokens_BT.shape == (0, 16)


def test_the_document_of_a_token_is_found(tmp_path: Path) -> None:
    data = MadeDataset(tmp_path, batch_documents=2)
    data.add("web", [[1, 2, 0], [0], [3, 4, 5, 0]])
    assert opened(data).document_of(np.arange(8)).tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_a_file_that_is_no_such_shard_is_refused_by_name(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [64]})
    path = str(data.path(0))
    with pytest.raises(DatasetError, match=r"arrow has 64 tokens, the manifest says 65"):
        OpenShard(path, U16, 65)
    with pytest.raises(DatasetError, match=r"its tokens are uint16, the manifest says uint32"):
        OpenShard(path, U32, 64)
    for damaged in (b"<html>404 Not Found</html>", data.path(0).read_bytes()[:-100], b""):
        data.path(0).write_bytes(damaged)
        with pytest.raises(DatasetError, match=f"{data.path(0).name}: not a shard"):
            OpenShard(path, U16, 64)
    with pytest.raises(DatasetError, match=r"missing.arrow is missing"):
        OpenShard(str(tmp_path / "missing.arrow"), U16, 64)


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [6400]})
    with pa.memory_map(str(data.path(0))) as file, pa.ipc.open_file(file) as reader:
        table = reader.read_all()
    path = str(tmp_path / "compressed.arrow")
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    with pytest.raises(DatasetError, match="compressed or not aligned"):
        OpenShard(path, U16, 6400)


def test_packed_rows_that_the_manifest_counts_otherwise_are_refused(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [640]})
    shard = opened(data)
    rows = len(shard.placed(16).first) - 1
    with pytest.raises(DatasetError, match=f"packs into {rows} rows of 16 tokens, the manifest says {rows + 1}"):
        shard.placed(16, rows + 1)
