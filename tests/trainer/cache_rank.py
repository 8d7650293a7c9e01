"""One rank in a process of its own, for tests that kill it: `python -m tests.trainer.cache_rank SETTINGS` (JSON).

Prints a line a batch: its number, and a digest of its tensors.
"""

import hashlib
import json
import sys
import time
from typing import Any

from trainer.config import CacheOptions
from trainer.data.token_stream import TokenBatch, TokenStream

__all__ = ["digest", "stream_of"]


def stream_of(uri: str, folder: str, max_bytes: int, **settings: Any) -> TokenStream:
    """A stream through a cache."""
    return TokenStream(uri, cache=CacheOptions(folder=folder, max_bytes=max_bytes), **settings)


def digest(batch: TokenBatch) -> str:
    """Of inputs and targets."""
    tensors = batch.tokens_BT.numpy().tobytes() + batch.targets_BT.numpy().tobytes()
    return hashlib.blake2b(tensors, digest_size=8).hexdigest()


def main() -> None:
    """Read all batches, with a pause after each."""
    settings = json.loads(sys.argv[1])
    pause = settings.pop("pause", 0.0)
    for batch in stream_of(**settings):
        print(batch.batch, digest(batch), flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
