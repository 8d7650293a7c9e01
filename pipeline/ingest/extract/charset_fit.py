"""Whether bytes can be in the encoding that is declared for them.

Servers declare one charset for all they send, and much of it is in another. An encoding does not fit where it leaves
more bytes unread than it reads, where the bytes are UTF-8 beyond chance, or where what it makes of them is no writing:
western letters in long runs without ASCII between them, Cyrillic with more capitals than small letters (KOI8 and
windows-1251 read as each other). A text that is so of itself stays: no other encoding fits it better.
"""

import codecs
import re

__all__ = ["utf8_sequences", "utf16_by_zeros", "why_unfit"]

FEW = 2  # faults that may be a slip
FEW_SEQUENCES = 4  # UTF-8 sequences that text in another encoding hardly has by chance, and nothing else beside them
MIN_LETTERS = 16  # bytes beyond ASCII from which their runs tell something

WESTERN = frozenset({"windows-1252", "iso-8859-15", "windows-1254", "iso-8859-10", "iso-8859-14", "macintosh"})
CYRILLIC = frozenset({"windows-1251", "koi8-r", "koi8-u", "iso-8859-5", "x-mac-cyrillic", "ibm866"})
HIGH_RUN = re.compile(rb"[\x80-\x9f\xa1-\xff]{4,}")
HIGH = bytes([*range(0x80, 0xA0), *range(0xA1, 0x100)])
CYRILLIC_SMALL = re.compile("[\u0430-\u045f]")
CYRILLIC_CAPITALS = re.compile("[\u0400-\u042f]")
NON_ASCII = re.compile("[^\x00-\x7f]")


def why_unfit(body: bytes, encoding: str, text: str) -> str | None:
    """Return why `body`, which `encoding` reads as `text`, is in another one; None where it may well be in this."""
    if encoding == "utf-8":
        return _unfit_utf8(body, text)
    if encoding.startswith("utf-16"):
        return None if not body or 0 in body or not _is_utf8(body) else "its bytes are UTF-8"
    if body.isascii():
        return None
    sequences = utf8_sequences(body)
    if sequences is not None and (sequences >= FEW_SEQUENCES or (encoding in WESTERN and sequences >= FEW)):
        return f"all {sequences} sequences beyond ASCII are UTF-8"
    invalid, beyond = text.count("\ufffd"), len(NON_ASCII.findall(text))
    if invalid > FEW and invalid * 10 > beyond:
        return f"{invalid} of {beyond} characters beyond ASCII are invalid"
    return _unlike_writing(body, encoding, text)


def _unfit_utf8(body: bytes, text: str) -> str | None:
    if "\ufffd" not in text:
        return None
    written = body.count(b"\xef\xbf\xbd")  # U+FFFD that was in the page already
    invalid = text.count("\ufffd") - written
    sequences = len(NON_ASCII.findall(text)) - written
    if invalid >= FEW and 2 * invalid > sequences:
        return f"{invalid} of {sequences} sequences are invalid"
    return None


def _unlike_writing(body: bytes, encoding: str, text: str) -> str | None:
    """Return what is odd in a text whose encoding knows all of its bytes."""
    if encoding in WESTERN:
        num_high = len(body) - len(body.translate(None, HIGH))
        in_runs = sum(len(run) for run in HIGH_RUN.findall(body))
        if num_high >= MIN_LETTERS and 2 * in_runs > num_high:
            return "its letters are those of another script"
    if encoding in CYRILLIC:
        small, capitals = len(CYRILLIC_SMALL.findall(text)), len(CYRILLIC_CAPITALS.findall(text))
        if small + capitals >= MIN_LETTERS and capitals > small:
            return f"{capitals} of {small + capitals} Cyrillic letters are capitals"
    return None


def utf8_sequences(body: bytes) -> int | None:
    """Return how many characters beyond ASCII a UTF-8 body holds, one of three bytes or more counting twice.

    None where the body is ASCII, or not UTF-8.
    """
    if body.isascii() or not _is_utf8(body):
        return None
    leads = len(body) - len(body.translate(None, bytes(range(0xC2, 0x100))))
    long_leads = len(body) - len(body.translate(None, bytes(range(0xE0, 0x100))))
    return leads + long_leads


def _is_utf8(body: bytes) -> bool:
    """Whether a body is UTF-8; it may be cut off inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return False
    return True


def utf16_by_zeros(body: bytes) -> str | None:
    """Return the UTF-16 of a body without a mark: markup makes every other byte zero, and nearly none of the rest."""
    head = body[:1024]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if not even + odd or max(even, odd) * 8 < len(head) or min(even, odd) * 8 > max(even, odd):
        return None
    return "utf-16le" if odd > even else "utf-16be"
