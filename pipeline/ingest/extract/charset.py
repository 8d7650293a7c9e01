"""From the bytes of a page to its characters, as browsers do it.

The order is WHATWG's (HTML standard, "determining the character encoding"): byte order mark, HTTP header,
`<meta>` or XML declaration at the start of the page, and only then detection. A label that names no encoding is
as good as none. Bytes that the encoding does not know become U+FFFD.
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

__all__ = ["CHARSET_VERSION", "declared_in_page", "decode_page", "encoding_of_label"]

CHARSET_VERSION = 1  # raise when a page's characters or its encoding's name may come out otherwise

PRESCAN_BYTES = 4096  # WHATWG asks for 1024; pages that put their <meta> later are common
DETECT_BYTES = 128 << 10
FEW_LETTERS = 8  # letters beyond ASCII from which telling one 8-bit encoding from another is more than a guess

# WHATWG's encodings ("names and labels"): name, Python's codec, labels besides the name.
# Differs: the 7-bit encodings that WHATWG maps to "replacement" to protect browsers are decoded; no script runs here.
_ENCODINGS = """
utf-8           utf-8          unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf8 x-unicode20utf8
utf-16le        utf-16-le      csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16
utf-16be        utf-16-be      unicodefffe
ibm866          cp866          866 cp866 csibm866
iso-8859-2      iso8859-2      csisolatin2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2
iso-8859-3      iso8859-3      csisolatin3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3
iso-8859-4      iso8859-4      csisolatin4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4
iso-8859-5      iso8859-5      csisolatincyrillic cyrillic iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988
iso-8859-6      iso8859-6      arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6-e
iso-8859-6      iso8859-6      iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987
iso-8859-7      iso8859-7      csisolatingreek ecma-118 elot_928 greek greek8 iso-ir-126 iso8859-7 iso88597
iso-8859-7      iso8859-7      iso_8859-7 iso_8859-7:1987 sun_eu_greek
iso-8859-8      iso8859-8      csiso88598e csisolatinhebrew hebrew iso-8859-8-e iso-ir-138 iso8859-8 iso88598
iso-8859-8      iso8859-8      iso_8859-8 iso_8859-8:1988 visual
iso-8859-8-i    iso8859-8      csiso88598i logical
iso-8859-10     iso8859-10     csisolatin6 iso-ir-157 iso8859-10 iso885910 l6 latin6
iso-8859-13     iso8859-13     iso8859-13 iso885913
iso-8859-14     iso8859-14     iso8859-14 iso885914
iso-8859-15     iso8859-15     csisolatin9 iso8859-15 iso885915 iso_8859-15 l9
iso-8859-16     iso8859-16
koi8-r          koi8-r         cskoi8r koi koi8 koi8_r
koi8-u          koi8-u         koi8-ru
macintosh       mac-roman      csmacintosh mac x-mac-roman
windows-874     cp874          dos-874 iso-8859-11 iso8859-11 iso885911 tis-620
windows-1250    cp1250         cp1250 x-cp1250
windows-1251    cp1251         cp1251 x-cp1251
windows-1252    cp1252         ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1
windows-1252    cp1252         iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii x-cp1252
windows-1253    cp1253         cp1253 x-cp1253
windows-1254    cp1254         cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989
windows-1254    cp1254         l5 latin5 x-cp1254
windows-1255    cp1255         cp1255 x-cp1255
windows-1256    cp1256         cp1256 x-cp1256
windows-1257    cp1257         cp1257 x-cp1257
windows-1258    cp1258         cp1258 x-cp1258
x-mac-cyrillic  mac-cyrillic   x-mac-ukrainian
gbk             gb18030        chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 iso-ir-58 x-gbk
gb18030         gb18030
hz-gb-2312      hz
big5            big5hkscs      big5-hkscs cn-big5 csbig5 x-x-big5
euc-jp          euc-jp         cseucpkdfmtjapanese x-euc-jp
iso-2022-jp     iso2022-jp     csiso2022jp
shift_jis       cp932          csshiftjis ms932 ms_kanji shift-jis sjis windows-31j x-sjis
euc-kr          cp949          cseuckr csksc56011987 iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601
euc-kr          cp949          windows-949
iso-2022-kr     iso2022-kr     csiso2022kr
"""
_CODECS: dict[str, str] = {}
_NAMES: dict[str, str] = {}
for _line in _ENCODINGS.strip().splitlines():
    _name, _codec, *_labels = _line.split()
    _CODECS[_name] = _codec
    _NAMES.update(dict.fromkeys((_name, *_labels), _name))

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
    return _NAMES.get(label.strip("\t\n\f\r \"'").lower())


def decode_page(body: bytes, declared: str | None, is_html: bool = True) -> tuple[str, str]:
    """The characters of a page without its byte order mark, and the name of the encoding they were read in.

    `declared` is the charset of the HTTP header as sent; a page that is not HTML declares nothing itself.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return _decode(body[len(mark) :], encoding), encoding
    encoding = (declared and encoding_of_label(declared)) or (is_html and declared_in_page(body)) or _detected(body)
    return _decode(body, encoding), encoding


def _decode(body: bytes, encoding: str) -> str:
    """`body` in WHATWG's sense of `encoding`, where Python's codec of that name knows fewer characters."""
    if encoding == "euc-jp":
        return body.decode("euc-jp", "gristmill.euc-jp")
    text = body.decode(_CODECS[encoding], "replace")
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
    if wide := _utf16_by_zeros(body):
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


def _utf16_by_zeros(body: bytes) -> str | None:
    """UTF-16 without a mark: markup makes every other byte zero, and nearly none of those between."""
    head = body[:1024]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if not even + odd or max(even, odd) * 8 < len(head) or min(even, odd) * 8 > max(even, odd):
        return None
    return "utf-16le" if odd > even else "utf-16be"
