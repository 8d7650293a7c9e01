"""Which of a page's blocks are its main content.

Three steps over the page's elements, in integers: what names and tags call furniture (menus, footers, comments) is
struck out; the element that holds most of the remaining paragraphs is found; inside it, lists of links and other
short matter between the paragraphs is struck out. No weights were trained: the few constants here were chosen by hand.
"""

import itertools

from pipeline.ingest.extract.blocks import Block, Page, tag_set
from pipeline.ingest.extract.class_names import FURNITURE, MAYBE_FURNITURE, PLACE, kind_of, names_of

__all__ = ["main_blocks"]

_MIN_PARAGRAPH = 50  # letters outside links that make a block count as a paragraph
_MIN_ITEM = 20  # the same for an item of a list, a row of a table and the like
_HALF = 1000  # letters of paragraphs in one box at which each of them counts half
_ALONE = 3  # a paragraph alone in its box counts a third: teasers are
_MIN_REGION = 250  # characters of a main region that is less than half of its page
_MIN_SHORT = 40  # letters of a block outside paragraphs, lists and tables
_MIN_AROUND_LINK = 8  # letters around a link that make it part of a sentence
_ENDS = ".!?:;。！？：؟।"

_FURNITURE_TAGS = tag_set("nav footer figcaption legend dialog")
_FRAMES = frozenset(("html", "body", "main", "article"))
_TEXT_TAGS = tag_set("p summary caption pre blockquote li td th dd dt h1 h2 h3 h4 h5 h6 tr tbody")
_LISTS = frozenset(("ul", "ol", "dl"))
_HEADINGS = tag_set("h1 h2 h3 h4 h5 h6")
_LINK_BOXES = tag_set("ul ol div section dl h2 h3 h4 aside figure")
_CELLS = tag_set("li td th tr dt")
_ITEMS = tag_set("li td th tr dt dd pre blockquote")


def main_blocks(page: Page) -> list[int]:
    """The indexes of the blocks that are the page's main content."""
    blocks = page.blocks
    letters = [_letters(block, page.tags[block.element]) for block in blocks]
    in_flow = _paragraphs_in(page, letters)
    scores = _scores(page, letters)
    struck = _furniture(page, scores, in_flow)
    inside = _main_region(page, scores, struck)
    shown = [index for index, block in enumerate(blocks) if not struck[block.element]]
    region = [index for index in shown if inside[blocks[index].element]]
    if _is_small(_num_chars(blocks, region), _num_chars(blocks, shown)):
        return shown
    _strike_link_boxes(page, scores, in_flow, inside, struck)
    paragraphs = {
        (page.parents[block.element], page.tags[block.element], page.attributes[block.element])
        for block, number in zip(blocks, letters, strict=True)
        if number >= _MIN_PARAGRAPH
    }
    kept = [index for index in region if _is_text(page, struck, paragraphs, index)]
    if 2 * _num_chars(blocks, kept) < _num_chars(blocks, region):
        return region  # an index, a table of contents: its links are what it is there for
    return _without_idle_headings(page, kept)


def _num_chars(blocks: list[Block], indexes: list[int]) -> int:
    return sum(blocks[index].chars for index in indexes)


def _is_small(region: int, page: int) -> bool:
    """Whether a region is too small a part of the page to be what it is about, so that the page is an index."""
    return region * 8 < page or (region < _MIN_REGION and region * 2 < page)


def _letters(block: Block, tag: str) -> int:
    """The letters of a block outside links, as many as Latin ones would say the same; 0: no paragraph."""
    letters = block.chars - block.link_chars
    if block.link_chars * 3 > block.chars:
        return 0
    text = block.text
    if not text.isascii():
        # In UTF-8 a Chinese character has three bytes, a Greek or Arabic letter two.
        letters = letters * (len(text) + len(text.encode("utf-8", "surrogatepass"))) // (2 * len(text))
    return letters if letters >= (_MIN_ITEM if tag in _ITEMS else _MIN_PARAGRAPH) else 0


def _scores(page: Page, letters: list[int]) -> list[int]:
    """Of each element, what its own paragraphs count: less where few stand together in a box."""
    tags, parents = page.tags, page.parents
    paragraphs: list[tuple[int, int, int]] = []  # element, box, letters
    letters_in = [0] * len(tags)
    number_in = [0] * len(tags)
    for block, number in zip(page.blocks, letters, strict=True):
        if number:
            element = block.element
            box = parents[element] if tags[element] in _TEXT_TAGS else element
            paragraphs.append((element, box, number))
            letters_in[box] += number
            number_in[box] += 1
    scores = [0] * len(tags)
    for element, box, number in paragraphs:
        score = number * letters_in[box] // (letters_in[box] + _HALF)
        scores[element] += score if number_in[box] > 1 else score // _ALONE
    return scores


def _sums(page: Page, struck: list[bool] | None = None) -> tuple[list[int], list[int]]:
    """Of each element with all that is inside: its characters, and those of links."""
    parents = page.parents
    chars, link_chars = [0] * len(parents), [0] * len(parents)
    for block in page.blocks:
        if not struck or not struck[block.element]:
            chars[block.element] += block.chars
            if page.tags[block.element] != "tr":  # a table of links is a table
                link_chars[block.element] += block.link_chars
    for element in range(len(parents) - 1, 0, -1):
        if chars[element]:
            chars[parents[element]] += chars[element]
            link_chars[parents[element]] += link_chars[element]
    return chars, link_chars


def _totals(parents: list[int], scores: list[int]) -> list[int]:
    """The scores of elements with all that is inside."""
    totals = scores[:]
    for element in range(len(parents) - 1, 0, -1):
        if totals[element]:
            totals[parents[element]] += totals[element]
    return totals


def _furniture(page: Page, scores: list[int], in_flow: list[int]) -> list[bool]:
    """Which elements are furniture, or inside some; their scores become 0.

    An element that holds most of the page's paragraphs is none, whatever its names say.
    """
    parents, tags, attributes = page.parents, page.tags, page.attributes
    chars, _ = _sums(page)
    totals = _totals(parents, scores)
    most, some = totals[0] * 8, totals[0] * 2
    struck = [False] * len(tags)
    for element in range(1, len(tags)):
        if struck[parents[element]]:
            struck[element] = True
            scores[element] = 0
        elif chars[element]:
            if tags[element] in _FRAMES:
                continue
            total = totals[element] * 10
            kind = _kind(tags[element], attributes[element], total > 0 and in_flow[parents[element]] > 1)
            struck[element] = total <= most if kind == FURNITURE else kind > 0 and total < some
            if struck[element]:
                scores[element] = 0
    return struck


def _kind(tag: str, attributes: str, is_in_flow: bool) -> int:
    """What kind of furniture an element is by its tag and names; 0: none. A box in the flow of text may be an aside."""
    if tag in _FURNITURE_TAGS:
        return FURNITURE
    kind = kind_of(attributes) if attributes else 0
    if tag == "aside":
        return 0 if is_in_flow and kind <= PLACE else FURNITURE
    if tag == "form":  # some servers put the whole page into one
        return max(kind, MAYBE_FURNITURE)
    return 0 if kind == PLACE and is_in_flow else kind


def _paragraphs_in(page: Page, letters: list[int]) -> list[int]:
    """How many paragraphs stand in each element itself."""
    number_in = [0] * len(page.tags)
    for block, number in zip(page.blocks, letters, strict=True):
        if number >= _MIN_PARAGRAPH:
            number_in[page.parents[block.element]] += 1
    return number_in


def _main_region(page: Page, scores: list[int], struck: list[bool]) -> list[bool]:
    """Which elements are in the main region: the smallest that holds most of the score, and its kin.

    Kin are, up to the element that holds nearly all, paragraphs beside it and elements of its tag and a name of its.
    """
    parents, tags, attributes = page.parents, page.tags, page.attributes
    totals = _totals(parents, scores)
    path = [0]
    for element in range(1, len(tags)):
        # In the page's order, parents first: the path grows downwards.
        total = totals[element]
        is_most = total > 0 and total * 100 >= totals[parents[element]] * 85
        if parents[element] == path[-1] and is_most and tags[element] not in _TEXT_TAGS:
            path.append(element)
    inside = [False] * len(tags)
    inside[path[-1]] = True
    top = max((i for i, e in enumerate(path) if totals[e] * 100 >= totals[0] * 95), default=0)
    kin = {
        above: (tags[below], frozenset(names_of(attributes[below]).split()))
        for above, below in itertools.pairwise(path[top:])
    }
    on_path = set(path)
    for element in range(path[top] + 1, len(tags)):
        parent = parents[element]
        if inside[parent]:
            inside[element] = True
        elif parent in kin and element not in on_path and totals[element] and not struck[element]:
            tag, names = kin[parent]
            inside[element] = (
                tags[element] in _TEXT_TAGS
                or totals[element] * 5 >= totals[path[-1]]
                or (tags[element] == tag and not names.isdisjoint(names_of(attributes[element]).split()))
            )
    return inside


def _strike_link_boxes(
    page: Page, scores: list[int], in_flow: list[int], inside: list[bool], struck: list[bool]
) -> None:
    """Strike out the boxes of the main region that are links for the most part, and hold next to no paragraphs."""
    parents, tags = page.parents, page.tags
    chars, link_chars = _sums(page, struck)
    totals = _totals(parents, scores)
    for element in range(1, len(tags)):
        if inside[element] and not struck[element]:
            struck[element] = struck[parents[element]] or (
                link_chars[element] * 2 > chars[element] > 0
                and tags[element] in _LINK_BOXES
                and totals[element] * 10 <= totals[0]
                and not (tags[element] in _LISTS and in_flow[parents[element]] > 1)
            )


def _is_text(page: Page, struck: list[bool], paragraphs: set[tuple[int, str, str]], index: int) -> bool:
    """Whether a block of the main region is part of the text, and no line of links, dates or buttons.

    A short block is, where it is written as a paragraph beside it is (`paragraphs`: parent, tag, attributes).
    """
    block = page.blocks[index]
    element = block.element
    tag, parent = page.tags[element], page.parents[element]
    if struck[element]:
        return False
    if block.link_chars * 2 > block.chars and tag not in _CELLS and page.tags[parent] not in _ITEMS:
        # "See section 6.3, Upgrades." is a sentence.
        return block.text[-1] in _ENDS and block.chars - block.link_chars >= _MIN_AROUND_LINK
    if tag in _TEXT_TAGS or block.is_pre or block.chars >= _MIN_SHORT:
        return True
    return not block.link_chars and (
        block.text[-1] in _ENDS or page.tags[parent] in _ITEMS or (parent, tag, page.attributes[element]) in paragraphs
    )


def _without_idle_headings(page: Page, kept: list[int]) -> list[int]:
    """`kept` without headings that nothing follows before the next of their rank."""
    result: list[int] = []
    below = "h0"  # the tag of the block that follows, if it is a heading
    for index in reversed(kept):
        tag = page.tags[page.blocks[index].element]
        if tag in _HEADINGS and below <= tag:
            continue
        below = tag if tag in _HEADINGS else "text"
        result.append(index)
    return result[::-1]
