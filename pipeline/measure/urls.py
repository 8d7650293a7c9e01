"""Documents from blocked hosts.

A block list is a file with one domain a line (`#` begins a comment); it blocks the domain and every host below it.
Differs: datatrove's URL filter also knows words inside URLs; those lists are not part of it.
"""

import gzip
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xxhash

from pipeline.measure.signal_group import Batch, Measure, Rule
from schemas import storage

__all__ = ["RULES", "SIGNALS", "BlockList", "host_of", "setup"]

GZIP_MAGIC = b"\x1f\x8b"


def host_of(url: str) -> str:
    """The host of a URL, lower-cased, without user, port and final dot; "" where there is none."""
    _, slashes, rest = url.partition("://")
    if not slashes:
        return ""
    for end in "/?#":
        rest = rest.partition(end)[0]
    host = rest.rpartition("@")[2]
    # An IPv6 address stands in brackets and holds colons itself.
    host = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return host.rstrip(".").lower()


def _suffixes(host: str) -> list[str]:
    """The host and the domains above it: "a.b.c" -> a.b.c, b.c, c."""
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))] if host else []


class BlockList:
    """Domains as sorted 64-bit hashes: 8 bytes a domain, so that a list of millions fits in every worker."""

    def __init__(self, domains: Iterable[str]) -> None:
        hashes = {xxhash.xxh3_64_intdigest(domain.encode()) for domain in domains}
        self._hashes = np.sort(np.fromiter(hashes, np.uint64, len(hashes)))

    @classmethod
    def load(cls, uri: str) -> "BlockList":
        """Read a list, gzipped or not. Raises ValueError where it is not UTF-8 text with one domain a line."""
        content = storage.read(uri)
        try:
            text = (gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content).decode("utf-8")
        except (UnicodeDecodeError, OSError, EOFError) as error:
            raise ValueError(f"{uri}: not a list of domains: {error}") from None
        return cls(cls._domains(uri, text))

    @staticmethod
    def _domains(uri: str, text: str) -> Iterable[str]:
        for number, line in enumerate(text.splitlines(), 1):
            domain = line.partition("#")[0].strip().lower().removeprefix("*.").strip(".")
            if "/" in domain or " " in domain:
                raise ValueError(
                    f"{uri}: line {number}: {line.strip()!r} is no domain: write one domain a line, as example.com"
                )
            if domain:
                yield domain

    def blocked(self, urls: Iterable[str | None]) -> np.ndarray:
        """1 for each URL whose host or a domain above it is listed, else 0 (int64)."""
        found = []
        for url in urls:
            suffixes = _suffixes(host_of(url or ""))
            hashes = np.array([xxhash.xxh3_64_intdigest(suffix.encode()) for suffix in suffixes], np.uint64)
            places = np.searchsorted(self._hashes, hashes)
            found.append(
                bool(np.any(self._hashes[np.minimum(places, self._hashes.size - 1)] == hashes))
                if self._hashes.size
                else False
            )
        return np.array(found, np.int64)


def setup(options: Mapping[str, Any]) -> Measure:
    """Load the list that `options["block_list"]` names; without one nothing is blocked."""
    listed = BlockList.load(options["block_list"]) if options["block_list"] else BlockList(())

    def measure(batch: Batch) -> dict[str, Any]:
        return {"url.blocked": listed.blocked(batch.column("url").to_pylist())}

    return measure


SIGNALS = {"url.blocked": "1 where the URL's host is on the block list, else 0."}

RULES = (Rule("url.blocked", "url.blocked", ">", 0, "the recipe's block list"),)
