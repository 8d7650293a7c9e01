"""What a page's blocks say."""

import time

import pytest

from pipeline.ingest.extract.blocks import compose
from pipeline.ingest.extract.html import extract_html
from pipeline.ingest.extract.read_page import read_page


def text(html: str) -> str:
    page = read_page(html)
    return compose(page.blocks, range(len(page.blocks)))


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("one\n  two\t<b>three</b>four <i> five</i>", "one two threefour five"),
        (
            "<p>これは<a href=/>東京</a>と\n  <a>大阪</a>の\n地図です。\n<p>Tokyo\n東京",
            "これは東京と大阪の地図です。\n\nTokyo 東京",
        ),
        ("한국어\n문장", "한국어 문장"),
        ("a&nbsp; b\u3000\u3000c", "a\u00a0 b\u3000\u3000c"),
        ("Donau&shy;dampf zero&#8203;width", "Donau\u00addampf zero\u200bwidth"),
        ("“Sí”, dijo — <em>→</em> <b>é</b>l", "“Sí”, dijo — → él"),
        ("1 &lt; 2 &amp;lt; < 3 <3 &am<b></b>p;", "1 < 2 &lt; < 3 <3 &amp;"),
        ("say <q>yes</q> or <q><b>no</b></q>", "say yes or no"),
    ],
)
def test_white_space_and_characters_are_as_a_browser_shows_them(html: str, wanted: str) -> None:
    assert text(html) == wanted


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("a<br>b<br><br>c<br/>d</br>e", "a\nb\n\nc\nd\ne"),
        ("<div>a<div>b</div>c</div>d<div><p>e<p>f</div>g</p>h", "a\nb\nc\nd\n\ne\n\nf\n\ng\n\nh"),
        ("a<hr>b<table><caption>c</caption></table><h1>d</h2>e", "a\n\nb\n\nc\n\nd\n\ne"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul><ol start=3><li>d<li value=9><p>e<p>f</ol>",
         "• a\n• b\n  • c\n\n3. d\n\n9. e\n\nf"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("<table><tr><th>a<th>b<tr><td>1<td><p>2 3<tr><td><td>4</table>", "a\tb\n1\t2 3\n4"),
        ("<table><tr><td>menu<td><p>one<p>two</table>", "menu\n\none\n\ntwo"),
        ("a<pre>\n  b\n\n\tc  \n</pre>d", "a\n\n  b\n\n\tc\n\nd"),
        ("<pre><span class=lineno>1 </span>if a:\n<span class='lineno'>2 </span>    b</pre>", "if a:\n    b"),
        ("<table><tr><td><pre>9\n10</pre><td><pre>a\n b</pre></table>", "a\n b"),
        ("<pre>a<br>  b<b>\n c</b></pre>", "a\n  b\n c"),
        ("<blockquote>a</blockquote>b<details><summary>c</summary>d</details>", "a\n\nb\nc\nd"),
        ("<xmp>a <b> &amp;</xmp>c", "a <b> &amp;\n\nc"),
    ],
)  # fmt: skip
def test_each_kind_of_block_stands_on_lines_of_its_own(html: str, wanted: str) -> None:
    assert text(html) == wanted


@pytest.mark.parametrize(
    "html",
    [
        "<p>a<p hidden>x<p>b",
        "<p>a<div style='color:red; DISPLAY : none'>x<div>x</div></div><p>b",
        "<p>a<script>x</script><style>x</style><noscript><p>x</noscript><template>x</template><p>b",
        "<p>a<svg><title>x</title><path/><text>x</text></svg><select><option>x<option>x</select><textarea>x</textarea><p>b",
        "<p>a<!-- x --><!--x--!><!--> <!doctype x><?x><p>b",
        "<p>a<dialog>x</dialog><SCRIPT>x < y</script ><p>b",
        "<p>a<iframe><p>x</p></iframe><object>x</object><video>x</video><p>b<a href='x",
        "<p>a<span hidden>x<p>b",
    ],
)
def test_what_a_page_does_not_show_is_left_out(html: str) -> None:
    assert text(html) == "a\n\nb"


def test_what_only_looks_hidden_is_kept() -> None:
    html = (
        "<p class='hidden none' style='overflow:hidden'>a<p style=x data-x='display:none'>b<p><dialog open>c</dialog>"
    )
    assert text(html) == "a\n\nb\n\nc"


def test_a_page_that_only_a_script_shows_is_read() -> None:
    assert (
        text("<body style='display:none'><div hidden><p>a<p style='display:none'>b<script>c</script></div>") == "a\n\nb"
    )


def test_ruby_is_kept_without_its_readings() -> None:
    assert text("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp>字<rt>ji</ruby>です") == "漢字です"


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("x <math><mi>a</mi><mo>+</mo><mi>b</mi></math> y", "x a+b y"),
        ("<math alttext='a^2'><mi>a</mi><mn>2</mn></math>", "$a^2$"),
        ("<math display=block><semantics><mi>a</mi><annotation encoding='application/x-tex'>\\frac{a}{b}</annotation>"
         "</semantics></math>", "$$\\frac{a}{b}$$"),
        ("<span class=katex><span class='katex-mathml'><math><mi>a</mi><annotation encoding='application/x-tex'>a"
         "</annotation></math></span><span class='katex-html' aria-hidden=true><b>a</b></span></span>.", "$a$."),
        ("<span class='katex-html'>a</span>", "a"),
        ("<span class=MathJax_Preview>x</span><span class='MathJax'>x2</span><script type='math/tex'>x^2 < 3</script>",
         "$x^2 < 3$"),
        ("<script type='math/tex; mode=display'>x\n &amp; y</script>", "$$x &amp; y$$"),
        ("<math alttext=q></math><img class='mwe-math-fallback-image-inline' alt='q'>", "$q$"),
        ("<mjx-container class='MathJax'><mjx-math></mjx-math><math><mi>a</mi></math></mjx-container>", "a"),
        ("<img class=latex alt='$x$'><img src='/latex.php?x' alt='y'><img alt='A cat'>", "$x$$y$"),
    ],
)  # fmt: skip
def test_a_formula_is_its_tex_once(html: str, wanted: str) -> None:
    assert text(html) == wanted


@pytest.mark.parametrize(
    "html",
    [
        '<p class="x"">a <b class="y">b</b> c',
        "<p title=it's>a <b>b</b> c",
        "<p title='>'>a <b title=\"</b>\">b</b> c",
        "<P\nCLASS = x>a <B>b</B\n> c",
        "<p/>a <i>b</b> c</i>",
        "<p>a <a href=x>b <a href=y></a></a>c",
        "a <img alt=x>b</img> c",
        "a <x-y>b</x-y> c",
    ],
)
def test_tags_are_read_as_browsers_read_them(html: str) -> None:
    assert text(html) == "a b c"


def test_what_stands_behind_the_body_is_kept() -> None:
    assert text("<html><body><div>a</div></body></html>b") == "a\nb"


@pytest.mark.parametrize(
    ("size", "make"),
    [
        (200_000, lambda size: "<div>" * size),
        (200_000, lambda size: "<ul><li>x" * size),
        (200_000, lambda size: "<table><tr><td>x<td>y" * (size // 4)),
        (200_000, lambda size: "<b>x" * size + "</i>" * size),
        (200_000, lambda size: "<div>x</div></p></b>" * size),
        (200_000, lambda size: "<p " + " ".join(f"a{number}='1'" for number in range(size)) + ">x"),
        (200_000, lambda size: "<table><tr>" + "<td>x" * size),
        (1_000_000, lambda size: "<" * size + "<a b='" * size),
        (2_000_000, lambda size: "x" * size + "<p>" + "a " * size + "漢\n" * size),
    ],
)
def test_hostile_pages_take_time_in_proportion(size: int, make) -> None:  # type: ignore[no-untyped-def]
    html = make(size)
    started = time.process_time()
    extract_html(html, "gristmill", main_content=True)
    # Some 1 to 3 s; a search that goes through the page again for each tag takes hours.
    assert time.process_time() - started < 60
