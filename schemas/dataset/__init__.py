"""The dataset library: opens one generation of a dataset in a folder, in a bucket or on a web server, to read it.

`open_dataset("data")` gives a `Dataset`: its shards and files, the ledger's rows, documents with their tokens, their
texts, and look-ups by id and by URL, as Arrow tables and readers of record batches. What is read whole is held against
the digest in the manifest first; a look-up reads only the rows around what it seeks. Free of Beam and of torch.

Files, in reading order: `dataset` (the class), `files` (opening and checking), `shards`, `documents`, `ledger`,
`index`.
"""

from schemas.dataset.dataset import Dataset, open_dataset, open_newest
from schemas.dataset.files import check_digest
from schemas.dataset.index import Key, is_doc_id
from schemas.dataset.ledger import Place
from schemas.dataset.shards import ShardFile, fixed_rows, map_shard, parse_shard, read_shard
from schemas.manifest import DatasetError

__all__ = [
    "Dataset",
    "DatasetError",
    "Key",
    "Place",
    "ShardFile",
    "check_digest",
    "fixed_rows",
    "is_doc_id",
    "map_shard",
    "open_dataset",
    "open_newest",
    "parse_shard",
    "read_shard",
]
