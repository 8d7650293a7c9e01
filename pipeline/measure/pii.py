"""Masking e-mail addresses and IPv4 addresses.

Follows datatrove 0.10's patterns. Differs: the replacement depends on the address alone, where datatrove counts
through a list in the process and so gives other text under another split of the input; an IPv4 address ends at a word
boundary ("v1.2.3.4" and "1.2.3.4.5" are version numbers) and is replaced by one set aside for documentation; what
lies within 256 bytes of an "@" is looked at; the form user@[address] is left alone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.measure.signal_group import Batch, Measure
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.edits import EDITS, REPLACEMENTS, compose_edits, make_edits, no_edits
from pipeline.text.utf8 import BYTES, INDEXES

__all__ = ["COLUMNS", "find_addresses", "mask", "setup"]

# RFC 5322's atoms, and a host of two labels or more. On bytes, so that \b does not depend on a Unicode version.
LOCAL = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
EMAIL = re.compile(rb"\b" + LOCAL + rb"+(?:\." + LOCAL + rb"+)*@(?:" + LABEL + rb"\.)+" + LABEL)
REACH = 256

EMAIL_ROWS = tuple(REPLACEMENTS.index(text) for text in ("email@example.com", "firstname.lastname@example.org"))
IP_ROWS = tuple(
    row for row, text in enumerate(REPLACEMENTS) if text.startswith(("192.0.2.", "198.51.100.", "203.0.113."))
)

LOCAL_BYTES = np.array([re.fullmatch(LOCAL + rb"|\.", bytes([byte])) is not None for byte in range(256)])
HOST_BYTES = np.array([re.fullmatch(rb"[A-Za-z0-9.-]", bytes([byte])) is not None for byte in range(256)])
WORD_BYTES = np.array([re.fullmatch(rb"[A-Za-z0-9_]", bytes([byte])) is not None for byte in range(256)])

# Blocks that are not reachable from everywhere (IANA's IPv4 special-purpose registry, 2024): network and prefix length.
NOT_GLOBAL = (
    *((0x00000000, 8), (0x0A000000, 8), (0x64400000, 10), (0x7F000000, 8), (0xA9FE0000, 16), (0xAC100000, 12)),
    *((0xC0000000, 24), (0xC0000200, 24), (0xC0A80000, 16), (0xC6120000, 15), (0xC6336400, 24), (0xCB007100, 24)),
    (0xF0000000, 4),
)
NETWORKS = np.array([network for network, _ in NOT_GLOBAL], np.int64)
SHIFTS = np.array([32 - length for _, length in NOT_GLOBAL], np.int64)

FLAGS_256 = types.Array(types.boolean, 1, "C", readonly=True)


@njit(nogil=True)
def _is_global(address: int) -> bool:
    return not np.any(address >> SHIFTS == NETWORKS >> SHIFTS)


@njit(nogil=True)
def _ip_length(data: Any, start: int, end: int, word_bytes: Any) -> int:
    """Length of the global IPv4 address that begins at `start`, 0 for none."""
    i, address = start, np.int64(0)
    for octet in range(4):
        value, digits = 0, 0
        while i < end and 0x30 <= data[i] <= 0x39 and digits < 4:
            value, digits, i = value * 10 + np.int64(data[i]) - 0x30, digits + 1, i + 1
        leading_zero = digits > 1 and data[i - digits] == 0x30
        if digits == 0 or digits > 3 or value > 255 or leading_zero:
            return 0
        address = address << 8 | value
        if octet < 3:
            if i >= end or data[i] != 0x2E:
                return 0
            i += 1
    if i < end and (word_bytes[data[i]] or (data[i] == 0x2E and i + 1 < end and 0x30 <= data[i + 1] <= 0x39)):
        return 0
    return i - start if _is_global(address) else 0


@kernel(
    types.int64[:, ::1](BYTES, INDEXES, types.boolean, types.boolean, FLAGS_256, FLAGS_256, FLAGS_256),
)
def _find(data: Any, offsets: Any, emails: bool, ips: bool, local_bytes: Any, host_bytes: Any, word_bytes: Any) -> Any:
    """Rows (text, start, end, is IPv4): windows around each "@" that may hold an address, and IPv4 addresses."""
    found = np.empty((16, 4), np.int64)
    n = 0
    for text in range(offsets.size - 1):
        first, end = offsets[text], offsets[text + 1]
        for i in range(first, end):
            low, high = i, i
            is_ip = False
            if emails and data[i] == 0x40:
                while low > first and i - low < REACH and local_bytes[data[low - 1]]:
                    low -= 1
                high = i + 1
                while high < end and high - i <= REACH and host_bytes[data[high]]:
                    high += 1
                if low == i or high == i + 1:
                    continue
            elif ips and 0x30 <= data[i] <= 0x39:
                if i > first and word_bytes[data[i - 1]]:
                    continue
                if i > first + 1 and data[i - 1] == 0x2E and 0x30 <= data[i - 2] <= 0x39:
                    continue
                high = i + _ip_length(data, i, end, word_bytes)
                is_ip = True
            if high == i:
                continue
            if n == found.shape[0]:
                larger = np.empty((2 * n, 4), np.int64)
                for k in range(n):
                    for column in range(4):
                        larger[k, column] = found[k, column]
                found = larger
            found[n, 0], found[n, 1], found[n, 2], found[n, 3] = text, low, high, is_ip
            n += 1
    return found[:n]


def find_addresses(data: np.ndarray, offsets: np.ndarray, kinds: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """(text, start byte in the text, length, replacement id) of each address to mask, in order and disjoint."""
    found = _find(data, offsets, "email" in kinds, "ip" in kinds, LOCAL_BYTES, HOST_BYTES, WORD_BYTES)
    spans: list[tuple[int, int, int, int]] = []
    for text, low, high, is_ip in found.tolist():
        origin = int(offsets[text])
        window = data[low:high].tobytes()
        matches = [(0, len(window))] if is_ip else [match.span() for match in EMAIL.finditer(window)]
        rows = IP_ROWS if is_ip else EMAIL_ROWS
        for start, end in matches:
            place = low + start - origin
            # An address may hold what looks like another kind: the longer one, which begins first, stays.
            while spans and spans[-1][0] == text and spans[-1][1] >= place:
                spans.pop()
            if spans and spans[-1][0] == text and spans[-1][1] + spans[-1][2] > place:
                continue
            row = rows[xxhash.xxh3_64_intdigest(window[start:end].lower()) % len(rows)]
            spans.append((text, place, end - start, row))
    return spans


def mask(data: np.ndarray, offsets: np.ndarray, kinds: Sequence[str]) -> pa.ListArray:
    """The edits that mask addresses of `kinds` ("email", "ip") in each text."""
    num_texts = offsets.size - 1
    spans = find_addresses(data, offsets, kinds) if kinds else []
    if not spans:
        return no_edits(num_texts)
    text, start, length, row = np.array(spans, np.int64).T
    return make_edits(np.searchsorted(text, np.arange(num_texts + 1)), start, length, row)


COLUMNS = {"edits": EDITS}  # every edit of a text, from the stored text to the final one


def setup(options: Mapping[str, Any]) -> Measure:
    """Mask addresses of the kinds `options["mask"]` on the view c4, behind C4's edits."""

    def measure(batch: Batch) -> dict[str, Any]:
        masked = mask(*batch.buffers(), options["mask"])
        return {"edits": compose_edits(batch.column("c4_edits"), masked)}

    return measure
