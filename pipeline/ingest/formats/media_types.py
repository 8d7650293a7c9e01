"""The type of a body: as declared, as its crawler identified it, or as its first bytes show.

Declared types lie: servers send pages as text/plain or application/octet-stream, and documents as text/html. The
first bytes decide between HTML, plain text and what is neither; WARC-Identified-Payload-Type decides where they are
silent. Follows WHATWG's MIME sniffing, sections 7.1 and 7.3.
Differs: text/plain is looked at for markup too, and text/html for what is no page (browsers do neither, so that no
text becomes a script).
"""

import json
import re

__all__ = ["OPAQUE", "resolve_type", "sniff"]

HEAD_BYTES = 1024
HTML, XHTML, PLAIN, BINARY = "text/html", "application/xhtml+xml", "text/plain", "application/octet-stream"
# Declared for anything: what they hold is for the bytes to say.
OPAQUE = frozenset(
    {BINARY, PLAIN, HTML, "binary/octet-stream", "application/unknown", "unknown/unknown", "application/download"}
    | {"application/x-unknown-content-type", "application/force-download", "application/x-download", "text/*", "*/*"}
)
CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
TAGS = (
    rb"html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p"  # WHATWG's
    rb"|meta|link|base|article|main|section|header|nav|ul|ol|h2|h3|span|center|form|img|noscript|frameset"
)
PAGE = re.compile(rb"<!doctype[\s]+html|<(?:" + TAGS + rb")[\s/>]", re.IGNORECASE)
PREAMBLE = re.compile(rb"\s*(?:<!--.*?-->\s*|<\?xml[^>]*\?>\s*|<\?php[^>]*\?>\s*)*", re.DOTALL)
MARKUP = re.compile(rb"\s*<")
ANY_TAG = re.compile(rb"<[a-z!/?]", re.IGNORECASE)
FEED = re.compile(rb"<(?:rss|feed|rdf:RDF|urlset|sitemapindex|svg)[\s>]", re.IGNORECASE)
MAGIC = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"{\\rtf", "application/rtf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "application/octet-stream"),
    (b"OggS\0", "application/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
)
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def sniff(body: bytes) -> str:
    """Return the type of a body that declares none: markup is HTML, other text is plain, the rest neither."""
    head = _head(body)
    if magic := _magic(body):
        return magic
    if MARKUP.match(head):
        return HTML
    return BINARY if CONTROLS.search(head) else PLAIN


def resolve_type(declared: str | None, identified: str | None, body: bytes) -> str:
    """Return the type of a body by its bytes, then by what identified it, then by what is declared."""
    if declared is None:
        return identified or sniff(body)
    head = _head(body)
    if declared not in OPAQUE and declared != XHTML:
        # An image or archive of its name; a page under such a name is most often the server's error page.
        return identified if identified else HTML if _is_page(head) else declared
    if magic := _magic(body):
        return magic
    if _is_page(head):
        return declared if declared == XHTML else HTML
    if declared in (HTML, XHTML):
        return _not_a_page(head, body) or (identified or declared)
    if CONTROLS.search(head):
        return identified or BINARY
    return identified or PLAIN


def _head(body: bytes) -> bytes:
    """The first bytes as ASCII may be looked for in them: UTF-16 without its zeros, no byte order mark."""
    head = body[:HEAD_BYTES]
    if head.startswith(UTF16_MARKS) or (len(head) > 3 and head[:4].count(0) == 2 and head[0] + head[1] > 0):
        return head.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").replace(b"\0", b"")
    return head.removeprefix(b"\xef\xbb\xbf")


def _magic(body: bytes) -> str | None:
    """The type whose files begin as `body` does; blank lines may stand before a PDF."""
    head = body[:64].lstrip(b"\r\n \t")
    return next((kind for magic, kind in MAGIC if head.startswith(magic)), None)


def _is_page(head: bytes) -> bool:
    """Whether a body begins as pages do, comments and declarations apart."""
    preamble = PREAMBLE.match(head)
    return preamble is not None and PAGE.match(head, preamble.end()) is not None


def _not_a_page(head: bytes, body: bytes) -> str | None:
    """What a body without a page's beginning is, though it is declared to be one; None: it may be a page."""
    preamble = PREAMBLE.match(head)
    if preamble is not None and (feed := FEED.match(head, preamble.end())):
        return "image/svg+xml" if feed[0][1:4].lower() == b"svg" else "application/xml"
    if body.lstrip()[:1] in (b"{", b"[") and _is_json(body):
        return "application/json"
    return None if not body.strip() or CONTROLS.search(head) or ANY_TAG.search(body) else PLAIN


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
