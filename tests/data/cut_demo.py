"""Cut the demo crawl in `tests/data/crawl` from larger archives, byte for byte at record boundaries.

    python tests/data/cut_demo.py ../shared/data/warc/crawl tests/data/crawl

Every record lies in a gzip member of its own, so a cut is a copy of members: what a crawler wrote stays as it was
written (wget's quirks included). Only the last file is broken on purpose, in the middle of a member. Which pages
are taken follows from a hash of their path without the language, so that the languages hold the same chapters.
"""

import hashlib
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = 1 << 16
MAX_MEMBER = 12_000  # bytes: a whole manual on one page would be a tenth of the demo

PAGES = ("response", "revisit", "conversion")

# (host, language): responses with status 200 that are taken.
HANDBOOK = {("handbook.test", lang): 34 for lang in ("ar-MA", "de-DE", "en-US", "ru-RU", "zh-CN")}
INSTALL = {("install.test", lang): 30 for lang in ("de", "el", "en", "es", "ja", "ko", "ru", "sv", "vi", "zh_CN")}
APT = {("apt.test", lang): 26 for lang in ("en", "es", "ja", "ru")}
FAQ = {(host, lang): 6 for host in ("faq.test", "www.faq.test") for lang in ("de", "fr", "ko", "ru", "zh-cn")}
HTTPD = {("httpd.test", lang): 18 for lang in ("de", "en", "es", "fr", "ja", "ko", "tr")}
OTHERS = {("httpd.test", "404"): 24, ("httpd.test", "302"): 10, ("install.test", "404"): 6}
RECRAWL = {("www.faq.test", lang): 10 for lang in ("de", "fr", "ko", "ru", "zh-cn")} | {("apt.test", "ja"): 30}
WET = {("apt.test", lang): 12 for lang in ("en", "es", "ja", "ru")} | {("install.test", "vi"): 11}
WET |= {("httpd.test", lang): 8 for lang in ("de", "en", "es", "fr", "ja", "ko", "tr")}
BROKEN = {("httpd.test", lang): 6 for lang in ("en", "fr", "tr")}

# file written: (archives it is cut from, what is taken)
FILES = {
    "web/manuals-00000.warc.gz": (["DOCS-*-00000.warc.gz", "DOCS-*-00001.warc.gz"], HANDBOOK | INSTALL),
    "web/manuals-00001.warc.gz": (["DOCS-*-00001.warc.gz", "DOCS-*-00002.warc.gz"], APT | FAQ | HTTPD | OTHERS),
    "web/legacy-charsets.warc.gz": (["LEGACY-*.warc.gz"], {("legacy.test", "h"): 24, ("legacy.test", "n"): 24}),
    "web/second-visit.warc.gz": (["RECRAWL-*.warc.gz"], RECRAWL),
    "web/cut-short.warc.gz": (["DOCS-*-00002.warc.gz"], BROKEN),
    "wet/manuals.warc.wet.gz": (["CONSTRUCTED-*.warc.wet.gz"], WET),
}


class Member(NamedTuple):
    """One gzip member: a record as stored, with what the choice depends on."""

    data: bytes
    type: str
    url: str
    status: str


def members(path: Path) -> Iterator[Member]:
    """The gzip members of an archive, in order."""
    data = path.read_bytes()
    start = 0
    while start < len(data):
        decoder, end, plain = zlib.decompressobj(wbits=31), start, b""
        while not decoder.eof:
            plain += decoder.decompress(data[end : end + BLOCK])
            end += BLOCK
        end = min(end, len(data)) - len(decoder.unused_data)
        header, _, block = plain.partition(b"\r\n\r\n")
        yield Member(data[start:end], _field(header, "WARC-Type"), _field(header, "WARC-Target-URI"), _status(block))
        start = end


def _field(header: bytes, name: str) -> str:
    found = re.search(rf"(?im)^{name}: *<?([^>\r\n]*)", header.decode("utf-8", "replace"))
    return found.group(1).strip() if found else ""


def _status(block: bytes) -> str:
    found = re.match(rb"HTTP/1\.[01] (\d{3})", block)
    return found.group(1).decode() if found else "200"


def stratum(member: Member) -> tuple[str, str]:
    """Host, and the language of the path or the status where that is not 200."""
    host, _, path = member.url.partition("://")[2].partition("/")
    first = path.partition("/")[0] if "/" in path else "en"
    return host, first if member.status == "200" else member.status


def rank(member: Member) -> bytes:
    """The place of a page among those of its stratum: a hash of its path without host and language."""
    path = member.url.partition("://")[2].partition("/")[2]
    chapter = re.sub(r"^[a-z]{2}([-_][A-Za-z]{2})?/|(?<=\.)(de|fr|ko|ru|zh-cn|es|ja|en)\.(?=html$)", "", path)
    return hashlib.blake2b(chapter.encode(), digest_size=8).digest()


def choose(found: list[Member], quota: dict[tuple[str, str], int], taken: set[str]) -> list[Member]:
    """The chosen records in the order of their archive: warcinfo, then requests with their answers; none of `taken`."""
    strata: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in found:
        if member.type in PAGES and len(member.data) <= MAX_MEMBER and member.url not in taken:
            strata[stratum(member)].append(member)
    urls = {m.url for key, count in quota.items() for m in sorted(strata[key], key=rank)[:count]}
    first = [m for m in found if m.type == "warcinfo"][:1]
    return first + [m for m in found if m.type != "warcinfo" and m.url in urls and len(m.data) <= MAX_MEMBER]


def main(crawl: Path, output: Path) -> None:
    """Write the demo files below `output` and print their sizes."""
    taken: set[str] = set()
    for name, (globs, quota) in FILES.items():
        archives = [path for glob in globs for path in sorted(crawl.glob(glob))]
        assert archives, f"no archive named {globs} below {crawl}"
        broken = "cut-short" in name
        chosen = choose([member for path in archives for member in members(path)], quota, taken if broken else set())
        data = b"".join(member.data for member in chosen)
        if broken:
            data = data[: -len(chosen[-1].data) // 2]
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        taken |= {member.url for member in chosen}
        print(f"{name}: {len(data):,} bytes, {len(chosen):,} records, {len(taken):,} URLs so far")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
