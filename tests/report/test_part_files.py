"""Part files behind a dataset: rows of ledgers found in them; the smallest of many rows."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.receipts import PartRef, Receipt
from pipeline.report.part_files import open_parts
from pipeline.report.scan_ledgers import Chosen
from pipeline.select.columns import Parts as DecidedParts
from pipeline.select.files import decision_root
from schemas import storage
from schemas.dataset import DatasetError, Place, open_dataset
from tests.report.handmade import document, write_dataset


def test_rows_of_a_ledger_are_found_in_the_parts_of_its_group(tmp_path: Path) -> None:
    documents = [document(f"http://x/{number}", f"text {number}") for number in range(9)]
    dataset = open_dataset(write_dataset(tmp_path, [*documents, document("http://y/", "other", source="wet")]))
    assert [dataset.part_of(Place(0, row)) for row in (0, 3, 4, 8)] == [(0, 0), (0, 3), (1, 0), (2, 0)]
    assert dataset.part_of(Place(1, 0)) == (3, 0)
    with pytest.raises(DatasetError, match="row 9 lies beyond the parts"):
        dataset.part_of(Place(0, 9))
    parts = open_parts(dataset, None)
    numbers, columns = parts.take(1, [3, 0, 3], ["url", "text"])
    assert (numbers, columns.to_pydict()) == (
        [0, 3],
        {"url": ["http://x/4", "http://x/7"], "text": ["text 4", "text 7"]},
    )
    places = [Place(0, 8), Place(0, 0), Place(1, 0)]
    assert {place: row["url"] for place, row in dataset.rows(places).items()} == dict(
        zip(places, ["http://x/8", "http://x/0", "http://y/"], strict=True)
    )


def test_parts_are_found_by_the_decision_and_without_it_by_their_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(write_dataset(tmp_path, [document(f"http://x/{n}", f"text {n}") for n in range(9)]))
    work, manifest = tmp_path / "work", dataset.manifest
    receipts = [Receipt.from_json(path.read_bytes()) for path in (work / "receipts").iterdir()]
    names = {receipt.sha256: receipt.path for receipt in receipts}
    refs = [
        PartRef(number, part.source, f"/elsewhere/{names[part.sha256]}", part.rows, part.text_bytes, part.sha256)
        for number, part in enumerate(manifest.parts)
    ]
    DecidedParts(refs).save(f"{decision_root(str(work), manifest.decision)}/parts.json")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "list_files", None)  # calling it would fail
        assert open_parts(dataset, None).numbers() == [0, 1, 2]
    # A part that was made again since has another name, which its receipt knows.
    old, new = (work / names[refs[1].sha256]), work / "parts" / "again.arrow"
    old.rename(new)
    receipt = next(path for path in (work / "receipts").iterdir() if old.name in path.read_text())
    made = dataclasses.replace(Receipt.from_json(receipt.read_bytes()), path=f"parts/{new.name}")
    receipt.write_bytes(made.to_json())
    (work / "receipts" / "damaged.json").write_bytes(made.to_json()[:-9])
    assert open_parts(dataset, None, [1]).take(1, [0], ["text"])[1].to_pydict() == {"text": ["text 4"]}


@given(st.permutations(range(20)), st.integers(1, 25))
def test_the_smallest_are_chosen_in_whatever_order_they_come(keys: list[int], limit: int) -> None:
    chosen = Chosen(limit)
    for key in keys:
        chosen.offer(key, Place(0, key))
    assert [place.row for place in chosen.places()] == list(range(min(limit, 20)))
