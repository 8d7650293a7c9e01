"""JSON that vouches for itself, for files that a run builds upon without looking at what they stand for.

A flipped bit in such a file (a digest, a count) would else become part of a dataset whose own digests agree with it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from schemas.recipe import canonical_json

__all__ = ["seal", "unseal"]

SEAL = "seal"  # sha256 of the canonical JSON of all other keys


def seal(content: Mapping[str, Any]) -> bytes:
    """The content as JSON, with its digest."""
    sealed = {**content, SEAL: _digest(content)}
    return json.dumps(sealed, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def unseal(data: bytes) -> dict[str, Any]:
    """What was sealed. Raises ValueError for anything else."""
    content = json.loads(data)
    if not isinstance(content, dict) or content.pop(SEAL, None) != _digest(content):
        raise ValueError("its content does not agree with its seal")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
