"""Reads torch.distributed.checkpoint's files so that nothing in them can run code.

Its `.metadata` is a pickle, and a pickle calls what it names (pytorch#189308); entries that are not tensors are pickles
once more. Here the pickle may name the classes that describe tensors, and nothing else; every entry is a tensor, in a
file of the checkpoint's own folder, and is read by `torch.load(weights_only=True)`.
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

__all__ = ["SafeReader"]

METADATA = ".metadata"
ALLOWED = {
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("torch", "Size"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.serialization", "_get_layout"),  # looks a name up in a table
}


class SafeReader(FileSystemReader):
    """torch's reader, for files of any origin. Raises ValueError for what is not plain tensors."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Read `.metadata`, which names the place of every tensor."""
        place = Path(self.path) / METADATA
        with place.open("rb") as file:
            metadata = _Unpickler(file, place).load()
        if not isinstance(metadata, Metadata):
            raise ValueError(f"{place}: not the metadata of a checkpoint")
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise ValueError(f"{place}: {name} is not a tensor: nothing else is read from a checkpoint")
        for info in (metadata.storage_data or {}).values():
            name = info.relative_path
            if Path(name).name != name or getattr(info, "transform_descriptors", None):
                raise ValueError(f"{place}: {name!r} is not a plain file of the checkpoint")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    """Refuses every name that does not describe tensors."""

    def __init__(self, file: BinaryIO, place: Path) -> None:
        super().__init__(file)
        self._place = place

    def find_class(self, module: str, name: str) -> Any:
        found = getattr(torch, name, None) if module == "torch" else None
        if (module, name) in ALLOWED or isinstance(found, torch.dtype):
            return super().find_class(module, name)
        raise ValueError(
            f"{self._place}: it would call {module}.{name}, and a checkpoint's metadata needs no such thing: somebody "
            "else has written it: do not use this checkpoint"
        )
