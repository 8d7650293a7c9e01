"""From pages to text.

HTML is extracted in a child process (`pipeline/ingest/extract/sandbox.py`); what is text already only passes through.
This module is imported by that child and must stay light: no pyarrow, no Beam, no pydantic.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from pipeline.ingest.extract.blocks import compose
from pipeline.ingest.extract.charset import CHARSET_VERSION, decode_page
from pipeline.ingest.extract.main_content import main_blocks
from pipeline.ingest.extract.read_page import read_page
from pipeline.ingest.extract.sandbox import Answer, Limits, PageChild

if TYPE_CHECKING:
    from pipeline.ingest.records import Record
    from schemas.recipe import Extract

__all__ = ["EMPTY", "Extracted", "Extractor", "extract_page", "extract_version", "storable"]

EXTRACT_VERSION = 2  # raise when a text may come out otherwise for a reason of ours
EMPTY = "extract.empty"
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

# The libraries that each method runs; resiliparse finds encodings for all of them.
_LIBRARIES = {
    "gristmill": ("resiliparse",),
    "resiliparse": ("resiliparse",),
    "trafilatura": ("resiliparse", "trafilatura", "lxml", "justext"),
}


def extract_version(method: str) -> str:
    """What shapes extracted text besides the recipe: our constants and the libraries' versions.

    Raises ValueError when the method's library is not installed.
    """
    if any(importlib.util.find_spec(library) is None for library in _LIBRARIES[method]):
        raise ValueError(f"extract.method: {method} is not installed: pip install 'gristmill[{method}]'")
    libraries = [f"{name} {version(name)}" for name in _LIBRARIES[method]]
    return ", ".join([f"extract {EXTRACT_VERSION}", f"charset {CHARSET_VERSION}", *libraries])


@dataclass(frozen=True, slots=True)
class Extracted:
    """A record's text as stored, or why it has none."""

    text: bytes | None  # UTF-8; None: dropped, here or in reading
    charset: str | None = None  # the encoding a page was read in
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None


class Extractor:
    """Turns records into texts, with one child process for the pages. A context manager; for one thread.

    `submit` a batch, and `collect` it later: the child works while the worker measures the batch before.
    """

    def __init__(self, options: "Extract", function: str = "pipeline.ingest.extract.html:extract_page") -> None:
        extract_version(options.method)  # a missing library is told here, not by every page
        keywords = {"method": options.method, "main_content": options.main_content}
        limits = Limits(options.max_cpu_seconds, options.max_memory_bytes)
        self._child = PageChild(function, keywords, limits)
        self._records: Sequence[Record] = ()

    def __enter__(self) -> "Extractor":
        self._child.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.__exit__(*exception)

    def submit(self, records: "Sequence[Record]") -> None:
        """Hand over a batch."""
        self._records = records
        self._child.submit([(_body(record), record.charset) for record in records if _is_page(record)])

    def collect(self) -> list[Extracted]:
        """The texts of the batch that was submitted, in its order."""
        answers = iter(self._child.collect())
        records, self._records = self._records, ()
        return [_of_answer(next(answers)) if _is_page(record) else _of_text(record) for record in records]

    def extract(self, records: "Sequence[Record]") -> list[Extracted]:
        """The text of each record."""
        self.submit(records)
        return self.collect()


def _is_page(record: "Record") -> bool:
    return record.rule is None and record.text is None and record.mime in HTML_TYPES


def _body(record: "Record") -> bytes:
    assert record.body is not None, f"{record.input}: a page without a body at {record.position}"
    return record.body


def _of_answer(answer: Answer) -> Extracted:
    if answer.rule is not None:
        return Extracted(None, answer.charset, answer.rule, answer.value, answer.threshold)
    return _alive(answer.text, answer.charset)


def _of_text(record: "Record") -> Extracted:
    """A record that needs no extraction: dropped before, or a text."""
    if record.rule is not None:
        return Extracted(None, None, record.rule, record.value, record.threshold)
    if record.text is not None:
        return _alive(storable(record.text), None)
    text, charset = decode_page(_body(record), record.charset, is_html=False)
    return _alive(storable(text), charset)


def _alive(text: bytes, charset: str | None) -> Extracted:
    if not text.decode().strip():
        return Extracted(None, charset, EMPTY)
    return Extracted(text, charset)


def extract_page(body: bytes, charset: str | None, method: str, main_content: bool) -> tuple[bytes, str]:
    """The text of an HTML page, and the encoding it was read in. Runs in the child."""
    html, encoding = decode_page(body, charset)
    text = extract_html(html, method, main_content)
    return storable(text.replace("\r\n", "\n")), encoding


def extract_html(html: str, method: str, main_content: bool) -> str:
    """The text of a page's HTML, without figures' captions, comments and what is said about the page (author, date).

    Whether all of the text is asked for or the main content, `gristmill` gives the same lines, or fewer; the main
    content of the other two holds lines that the page does not have: resiliparse 2.0.1 leaves out pieces of text of
    one character. `tests/bench/bench_extract.py` measures all three.
    """
    if method == "gristmill":
        page = read_page(html)
        return compose(page.blocks, main_blocks(page) if main_content else range(len(page.blocks)))
    return _by_trafilatura(html, main_content) if method == "trafilatura" else _by_resiliparse(html, main_content)


def _by_resiliparse(html: str, main_content: bool) -> str:
    # Imported here, as trafilatura is: only the child of a recipe that asks for it needs it.
    from resiliparse.extract.html2text import extract_plain_text

    try:
        return extract_plain_text(
            html, main_content=main_content, alt_texts=True, comments=False, post_meta=False, skip_elements=_NOT_TEXT
        )
    except ValueError as error:
        # The parser's status 2 is memory that it did not get.
        if "(Error 2)" in str(error):
            raise MemoryError(str(error)) from None
        raise


# What stands in place of a picture, and under it. Not `alt_texts=False`: that leaves out every <figure>, and with it
# the code and the tables that blogs put there (equal in F1 to 0.001 on the pages above).
_NOT_TEXT = ("img", "area", "svg", "object", "video", "audio", "figcaption")


def _by_trafilatura(html: str, main_content: bool) -> str:
    # Imported here: it takes half a second.
    import trafilatura

    if main_content:
        return trafilatura.extract(html, include_comments=False) or ""
    return trafilatura.html2txt(html)


def storable(text: str) -> bytes:
    """A text as it is stored: UTF-8, with U+FFFD for NUL and for the halves of characters that UTF-8 cannot hold."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, where two halves of a character that stand apart in the text find each other.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
