"""From the bytes of a page to its characters, as browsers do it.

The order is WHATWG's (HTML standard, "determining the character encoding"): byte order mark, HTTP header,
`<meta>` or XML declaration at the start of the page, and only then detection. A label that names no encoding is
as good as none. Bytes that the encoding does not know become U+FFFD.
Differs: a declared encoding that does not fit the bytes (charset_fit.py) gives way to one that does.
"""

import codecs
import re
from collections.abc import Iterator

import webencodings
from resiliparse.parse.encoding import detect_encoding
from webencodings.labels import LABELS

from pipeline.ingest.extract.charset_fit import utf8_sequences, utf16_by_zeros, why_unfit

__all__ = ["CHARSET_VERSION", "declared_in_page", "decode_bytes", "decode_page", "encoding_of_label"]

CHARSET_VERSION = 2  # raise when a page's characters or its encoding's name may come out otherwise

PRESCAN_BYTES = 4096  # WHATWG asks for 1024; pages that put their <meta> later are common
DETECT_BYTES = 128 << 10
FEW_LETTERS = 8  # letters beyond ASCII from which telling one 8-bit encoding from another is more than a guess

# Differs from WHATWG: the 7-bit encodings that it maps to "replacement" to protect browsers are decoded; no script runs
# here. Label -> name.
_SEVEN_BIT = {"hz-gb-2312": "hz-gb-2312", "iso-2022-kr": "iso-2022-kr", "csiso2022kr": "iso-2022-kr"}
# Python's codecs where webencodings has none, or one that knows fewer characters.
_CODECS = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022-kr", "gbk": "gb18030"}
_NO_ENCODING = frozenset({"replacement", "x-user-defined"})

# What the detector calls by Python's names, and a page means by the wider encoding of the same family.
_DETECTED = {
    "ascii": "windows-1252",
    "cp949": "euc-kr",
    "euc_jp": "euc-jp",
    "euc_kr": "euc-kr",
    "iso2022_jp": "iso-2022-jp",
    "iso2022_kr": "iso-2022-kr",
    "hz": "hz-gb-2312",
    "mac-cyrillic": "x-mac-cyrillic",
    "utf_8": "utf-8",
}

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"))


def encoding_of_label(label: str) -> str | None:
    """WHATWG's name of the encoding that `label` stands for, lower-cased; None for a label that names none."""
    label = label.strip("\t\n\f\r \"'").lower()
    name = _SEVEN_BIT.get(label) or LABELS.get(label)
    return None if name in _NO_ENCODING else name


def decode_page(body: bytes, declared: str | None, is_html: bool = True) -> tuple[str, str]:
    """Return a page's characters without the byte order mark, and the encoding that they were read in.

    `declared` is the charset of the HTTP header as sent; a page that is not HTML declares nothing itself. Where the
    declared encoding does not fit the bytes, the first other one that does is taken, and the reason stands behind its
    name: `windows-1252 (declared utf-8: 26 of 27 sequences are invalid)`.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return decode_bytes(body[len(mark) :], encoding), encoding
    stated = [name for name in (declared and encoding_of_label(declared), is_html and declared_in_page(body)) if name]
    if not stated:
        encoding = _detected(body)
        return decode_bytes(body, encoding), encoding
    text = decode_bytes(body, stated[0])
    reason = why_unfit(body, stated[0], text)
    if reason is not None:
        for other in dict.fromkeys([*stated[1:], *_guesses(body)]):
            read = decode_bytes(body, other)
            if other != stated[0] and why_unfit(body, other, read) is None:
                return read, f"{other} (declared {stated[0]}: {reason})"
    return text, stated[0]


def _guesses(body: bytes) -> Iterator[str]:
    """Encodings to try where the declared one does not fit."""
    if utf8_sequences(body) is not None:
        yield "utf-8"
    yield _detected(body)
    yield "windows-1252"


def decode_bytes(body: bytes, encoding: str) -> str:
    """`body` in WHATWG's sense of `encoding`, where Python's codec of that name knows fewer characters."""
    if encoding == "euc-jp":
        return body.decode("euc-jp", "gristmill.euc-jp")
    text = body.decode(_CODECS.get(encoding) or webencodings.lookup(encoding).codec_info.name, "replace")
    return text.translate(_BIG5_SYMBOLS) if encoding == "big5" else text


# Python's big5hkscs reads ten symbols otherwise than Microsoft and WHATWG do.
_BIG5_SYMBOLS = str.maketrans("•､‾∼♁☉／＼¥¢£", "‧﹑¯～⊕⊙∕﹨￥￠￡")


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Decodes the EUC-JP characters that only Microsoft's table has, such as circled digits; else U+FFFD."""
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
        row, cell = pair[0] - 0xA1, pair[1] - 0xA1
        lead = (0x81 if row < 62 else 0xC1) + row // 2
        # Shift_JIS packs two rows of 94 into one lead byte, and its trail bytes leave out 0x7F.
        trail = cell + 0x9F if row % 2 else cell + 0x40 + (cell >= 63)
        try:
            return bytes((lead, trail)).decode("cp932"), error.start + 2
        except UnicodeDecodeError:
            pass
    return "\ufffd", error.end


codecs.register_error("gristmill.euc-jp", _as_windows)

_SPACE = rb"\t\n\f\r "
_TAG = re.compile(rb"<(?:(!--)|(meta)(?=[%s/])|/?[A-Za-z][^%s>]*|([!/?]))" % (_SPACE, _SPACE), re.IGNORECASE)
_ATTRIBUTE = re.compile(
    rb"[%s/]*([^%s/>][^%s/>=]*)" % (_SPACE, _SPACE, _SPACE)
    + rb"(?:[%s]*=[%s]*(?:\"([^\"]*)\"|'([^']*)'|([^%s>\"'][^%s>]*)))?" % (_SPACE, _SPACE, _SPACE, _SPACE)
)
_CONTENT = re.compile(rb"charset[%s]*=[%s]*(?:\"([^\"]*)\"|'([^']*)'|([^%s;\"'][^%s;]*))" % ((_SPACE,) * 4), re.I)
_XML = re.compile(rb"<\?xml[^>]*?encoding[\x00- ]*=[\x00- ]*(?:\"([^\"\x00- >]+)\"|'([^'\x00- >]+)')")


def declared_in_page(body: bytes) -> str | None:
    """The encoding that the page's first bytes declare by `<meta>`, else by an XML declaration (WHATWG "prescan").

    A declared UTF-16 means UTF-8: the declaration could not have been read in UTF-16.
    """
    if body.startswith((b"<\0?\0x\0", b"\0<\0?\0x")):
        return "utf-16le" if body[0] else "utf-16be"
    head = body[:PRESCAN_BYTES]
    encoding = _in_meta(head) if b"charset" in head.lower() else None
    if encoding is None and (xml := _XML.match(head)):
        encoding = encoding_of_label((xml[1] or xml[2]).decode("latin-1"))
    return "utf-8" if encoding in ("utf-16le", "utf-16be") else encoding


def _in_meta(head: bytes) -> str | None:
    """The encoding that the first `<meta>` with a known one names; tags in comments do not count."""
    position = 0
    while tag := _TAG.search(head, position):
        comment, meta, other = tag.groups()
        if comment:
            # `<!-->` is a whole comment: its dashes may be those of the opening.
            end = head.find(b"-->", tag.start() + 2)
        elif other:
            end = head.find(b">", tag.start())
        else:
            attributes, end = _attributes(head, tag.end())
            if meta and (encoding := _meta_encoding(attributes)):
                return encoding
        if end < 0:
            return None
        position = max(end, tag.start() + 1)
    return None


def _attributes(head: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """A tag's attributes, the first of a name, and where they end."""
    attributes: dict[bytes, bytes] = {}
    while found := _ATTRIBUTE.match(head, position):
        attributes.setdefault(found[1].lower(), found[2] or found[3] or found[4] or b"")
        position = found.end()
    return attributes, position


def _meta_encoding(attributes: dict[bytes, bytes]) -> str | None:
    """The encoding that one `<meta>` declares."""
    label: bytes | None = attributes.get(b"charset")
    if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
        found = _CONTENT.search(attributes.get(b"content", b""))
        label = found and (found[1] or found[2] or found[3])
    if label is None:
        return None
    name = label.decode("latin-1")
    return "windows-1252" if name.strip().lower() == "x-user-defined" else encoding_of_label(name)


def _detected(body: bytes) -> str:
    """The encoding of bytes that nothing declares; windows-1252 where there is nothing to go by, as in browsers."""
    if wide := utf16_by_zeros(body):
        return wide
    try:
        # Not final: a page cut off inside a character is still UTF-8.
        codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        pass
    else:
        if not body.isascii():
            return "utf-8"
    # Unmapped names: mapped, the detector calls EUC-KR UTF-8.
    found = detect_encoding(body, max_len=DETECT_BYTES, html5_compatible=False) or ""
    name = _DETECTED.get(found) or encoding_of_label(found.replace("_", "-")) or "windows-1252"
    # Quotes and dashes below 0xC0 lie alike in all of Microsoft's encodings, and mislead the detector.
    return "windows-1252" if name not in _MULTIBYTE and _num_letters(body[:DETECT_BYTES]) < FEW_LETTERS else name


_MULTIBYTE = {
    "utf-8", "gbk", "gb18030", "hz-gb-2312", "big5", "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "iso-2022-kr",
}  # fmt: skip
_LETTERS = bytes(range(0xC0, 0x100))


def _num_letters(body: bytes) -> int:
    """Bytes that stand for letters in nearly every 8-bit encoding."""
    return len(body) - len(body.translate(None, _LETTERS))
