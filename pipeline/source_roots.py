"""Where the crawl files of a dataset lie: noted in its work folder, as the dataset itself is the same anywhere."""

import json
from collections.abc import Mapping

from schemas import storage
from schemas.recipe import Source

__all__ = ["record_roots", "roots_of"]

FILE = "sources.json"  # {source: [root, ...]}, the newest first
KEPT = 8  # roots of a source: a work folder may serve several datasets


def record_roots(work: str, sources: Mapping[str, Source]) -> None:
    """Note the root of each source, a local one in full."""
    before = _recorded(work)
    now = dict(before)
    for name, source in sources.items():
        path = storage.local_path(source.root)
        root = str(path.absolute()) if path is not None else source.root
        now[name] = [root, *(other for other in before.get(name, []) if other != root)][:KEPT]
    if now != before:
        storage.write(storage.join(work, FILE), json.dumps(now, sort_keys=True).encode())


def roots_of(work: str, source: str) -> list[str]:
    """The roots that a source was read from, the newest first; none where the work folder does not know."""
    return _recorded(work).get(source, [])


def _recorded(work: str) -> dict[str, list[str]]:
    try:
        found = json.loads(storage.read(storage.join(work, FILE)))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
