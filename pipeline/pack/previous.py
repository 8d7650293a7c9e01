"""The generation that a run builds on, and what of it is used again."""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.generation import FileRef, Manifest
from schemas.manifest import newest_generation, read_files, read_inputs, read_manifest, read_named, read_shards

__all__ = ["Previous", "load_previous"]


@dataclass(frozen=True)
class Previous:
    """A committed generation with its tables."""

    dataset: str
    manifest: Manifest
    shards: pa.Table
    files: pa.Table
    inputs: pa.Table

    def file_refs(self) -> list[FileRef]:
        """The files table as references, in its order: ledgers first."""
        return [FileRef(**row) for row in self.files.to_pylist()]

    def ledger_path(self, ledger: int) -> str:
        """Path of a ledger, by its number."""
        path: str = self.files["path"][ledger].as_py()
        assert path.startswith("ledger/"), f"{path}: row {ledger} of the files table is no ledger"
        return path

    def index_files(self) -> list[str]:
        """Paths of index/documents and index/urls."""
        folders = ("index/documents/", "index/urls/")
        return [path for path in self.files["path"].to_pylist() if path.startswith(folders)]

    def splits(self) -> pa.Table:
        """doc_id and split of every kept document: a split is fixed when a document is first kept."""
        tables = []
        for ledger in range(len(self.manifest.groups)):
            data = read_named(self.dataset, self.ledger_path(ledger))
            table = pq.ParquetFile(io.BytesIO(data)).read(columns=["doc_id", "split"])
            tables.append(table.filter(pc.is_valid(table["split"])))
        return pa.concat_tables(tables)


def load_previous(dataset: str) -> Previous | None:
    """The dataset's newest generation; None where there is no dataset yet."""
    newest = newest_generation(dataset)
    if newest == 0:
        return None
    manifest = read_manifest(dataset, newest)
    return Previous(
        dataset, manifest, read_shards(dataset, manifest), read_files(dataset, manifest), read_inputs(dataset, manifest)
    )
