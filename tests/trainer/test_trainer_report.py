"""The run's report: written from metrics.jsonl alone, escaped, self-contained, true to what the run went through."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainer.report.charts import BUCKETS, Line, Mark, heat_map, line_chart
from trainer.report.history import build_history
from trainer.report.html import write_report
from trainer.report.metrics import Metrics

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\x00\u202e"


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def write_run(folder: Path) -> None:
    """30 steps: a spike at 12 that goes back to 10, a skip, a lost shard, a resume, samples; names are hostile."""
    metrics = Metrics(folder)
    source = f"web{EVIL}"
    metrics.write(
        "run", 0, name=f"small {EVIL}", seed=7, steps=30, parameters=4_200_000, flops_per_token=26_000_000, world=2,
        device="cpu", config=f"name: {EVIL}", sources={source: {"weight": 0.75, "tokens": 1000},
        "wiki": {"weight": 0.25, "tokens": 400}},
        datasets=[{"name": "", "uri": f"s3://{EVIL}", "generation": 1, "order_digest": "ab" * 32}],
    )  # fmt: skip
    for step in [*range(13), *range(10, 30)]:
        values = {"layer_norms": {"layers.0": 0.5, "norm": 0.25}} if step % 10 == 0 else {}
        metrics.write(
            "step", step, loss=9.0 - step / 5, learning_rate=1e-3, gradient_norm=1.0, tokens=512, data_wait=0.01,
            tokens_per_second=1000.0, **values,
        )  # fmt: skip
        if step == 12 and sum(1 for _ in (folder / "metrics.jsonl").open()) < 20:
            documents = [{"url": f"javascript:{EVIL}", "source": source, "id": "00"}, {"url": "https://b.example/2"}]
            metrics.write(
                "spike", 12, batch=12, loss=math.nan, gradient_norm=2.5, score=21.5, reason=f"norm 2.5 {EVIL}",
                action="rewind", documents=documents, num_documents=9,
            )  # fmt: skip
            metrics.write("eval", 13, sets={"web": {"loss": 99.0, "perplexity": 1.0, "bits_per_byte": 1.0}})
            metrics.write("rewind", 10, to=10, checkpoint=f"c/{EVIL}", batches=[11, 12, 14])
    metrics.write("skip", 20, batch=23, reason=f"loss nan {EVIL}")
    metrics.write("lost", 21, shard="c0ffee", source="wiki")
    metrics.write("resume", 15, checkpoint="c/step-15", world=3, note=f"{EVIL}")
    for step, loss in ((10, 7.0), (30, 3.25)):
        metrics.write("eval", step, sets={f"web{EVIL}": {"loss": loss, "perplexity": 25.8, "bits_per_byte": 1.11}})
        metrics.write("sample", step, prompt="Once ", text=f"upon a time {step} {EVIL}")
    metrics.write(
        "mixture", 30, sources={source: {"tokens": 11_000, "epochs": 11.0}, "wiki": {"tokens": 4000, "epochs": 10.0}}
    )
    metrics.write("checkpoint", 30, path="c/step-30", seconds=1.5, bytes=2048)
    metrics.write("end", 30, reason="finished")
    metrics.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    path = write_report(folder)
    assert path == str(folder / "report.html")
    return Path(path).read_text()


def words(page: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(style|title)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_nothing_of_the_data_becomes_markup_and_nothing_is_fetched(page: str) -> None:
    parsed = Tags(page)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form", "foreignobject"} & set(
        parsed.tags
    )
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "srcset")]
    assert all(value.startswith("#") for name, value in parsed.attributes if name == "href")
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x00" not in page
    assert "\u202e" not in page


def test_anchors_are_unique_and_every_link_has_its_section(page: str) -> None:
    attributes = Tags(page).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for name, value in attributes if name == "href"} <= set(ids)


def test_the_head_tells_where_the_run_stands(page: str) -> None:
    said = words(page)
    assert "The run is finished. Validation loss on web" in said
    assert "from 7.000 to 3.250 ." in said
    assert "steps 30 of 30" in said
    # Of the last 20 of 30 steps, 9 - 10/5 to 9 - 29/5: those that were taken back do not count twice.
    assert "training loss 5.1 last 20" in said
    assert "tokens trained 15k" in said
    assert "MFU – device unknown" in said


def test_the_data_story_has_mixture_spikes_and_losses(page: str) -> None:
    said = words(page)
    assert "75.0 % 73.3 %" in said
    assert "11k 1k 11.00" in said
    assert "step 12 · batch 12 · gone back before it loss nan, gradient norm 2.5 norm 2.5 &lt;script&gt;" in said
    assert "javascript:&lt;script&gt;" in said
    assert "https://b.example/2" in said
    assert "and 7 more" in said
    assert "10 gone back to c/" in said
    assert "past 3 batches: 11 to 12, 14" in said
    assert "20 batch 23 skipped loss nan" in said
    assert "21 shard of wiki lost c0ffee: its rows have no targets from here on" in said
    assert "3 steps were taken back" in said
    assert "15 resumed c/step-15;" in said
    assert "c/step-30 (2.0 kB in 2s)" in said
    assert said.index("upon a time 30") < said.index("upon a time 10")


def test_equal_metrics_make_equal_bytes(tmp_path: Path) -> None:
    write_run(tmp_path)
    first = Path(write_report(tmp_path)).read_bytes()
    assert Path(write_report(tmp_path)).read_bytes() == first


def test_a_run_of_no_step_and_a_run_that_was_cut_off_have_reports_too(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    assert "Nothing was measured." in Path(write_report(tmp_path)).read_text()
    metrics.write("step", 0, loss=math.nan, gradient_norm=math.inf)
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    assert "The run goes on, or was cut off." in Path(write_report(tmp_path)).read_text()


def test_no_metrics_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        write_report(tmp_path)


def test_a_rewind_takes_back_steps_evaluations_and_samples_beyond_it() -> None:
    history = build_history(
        [
            *({"event": "step", "step": step, "loss": float(step)} for step in range(6)),
            {"event": "eval", "step": 4, "sets": {"a": {"loss": 1.0}}},
            {"event": "eval", "step": 6, "sets": {"a": {"loss": 2.0}}},
            {"event": "rewind", "step": 4, "to": 4},
            {"event": "step", "step": 4, "loss": 40.0},
        ]
    )
    assert history.line("loss").points == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0), (5, 40.0)]
    assert [event["step"] for event in history.of("eval")] == [4]
    assert (history.taken_back, history.done) == (2, 5)


# ---------------------------------------------------------------- charts


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


def places(text: str, kind: str) -> list[tuple[float, float]]:
    [line] = [each for each in svg(text).iter("polyline") if kind in each.attrib["class"]]
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]


def test_a_curve_keeps_every_point_of_few_and_the_means_of_many() -> None:
    few = [(float(step), float(step % 3)) for step in range(BUCKETS)]
    assert len(places(line_chart("a", "A", [Line("a", few)]), "line-0")) == BUCKETS
    many = [(float(step), 5.0 + (-1) ** step) for step in range(10 * BUCKETS)]
    drawn = line_chart("a", "A", [Line("a", many)])
    heights = {y for _, y in places(drawn, "line-0")}
    assert len(places(drawn, "line-0")) == BUCKETS
    assert len(heights) == 1  # 4 and 6 by turns, so 5 on the mean
    assert len({y for pair in svg(drawn).iter("polygon") for y in pair.attrib["points"].split()}) == 2 * BUCKETS


def test_higher_values_are_drawn_higher_and_later_steps_further_right() -> None:
    for log in (False, True):
        points = places(line_chart("a", "A", [Line("a", [(0, 1.0), (50, 10.0), (100, 100.0)])], log=log), "line-0")
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
        middle = (points[0][1] + points[2][1]) / 2
        assert (abs(points[1][1] - middle) < 0.2) == log


def test_values_that_are_no_numbers_are_left_out_of_a_curve() -> None:
    drawn = line_chart("a", "A", [Line("a", [(0, math.nan), (1, 2.0), (2, math.inf), (3, 4.0)])])
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert len(places(drawn, "line-0")) == 2


def test_a_single_point_and_a_flat_curve_can_be_drawn() -> None:
    assert "<circle" in line_chart("a", "A", [Line("a", [(5, 3.0)])])
    assert len(places(line_chart("a", "A", [Line("a", [(0, 0.0), (9, 0.0)])]), "line-0")) == 2
    assert len(places(line_chart("a", "A", [Line("a", [(0, -2.0), (9, -2.0)])], log=True), "line-0")) == 2


@pytest.mark.parametrize(("low", "high"), [(8.9, 9.4), (0.36, 0.61), (2.0, 11.0), (0.01, 400.0), (3.0, 3.0)])
def test_a_logarithmic_axis_has_grid_lines_however_little_a_curve_moves(low: float, high: float) -> None:
    drawn = line_chart("a", "A", [Line("a", [(0, low), (10, high)])], log=True)
    assert 3 <= sum(each.attrib["class"] == "grid" for each in svg(drawn).iter("line")) <= 8


def test_marks_are_drawn_at_their_step_and_say_what_they_are() -> None:
    drawn = line_chart("a", "A", [Line("a", [(0, 1.0), (10, 2.0)])], [Mark(5, "spike", "at 5"), Mark(99, "turn", "no")])
    [mark] = [each for each in svg(drawn).iter("line") if each.attrib["class"] == "mark-spike"]
    first, last = places(drawn, "line-0")
    assert float(mark.attrib["x1"]) == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert "<title>at 5</title>" in drawn
    assert "mark-turn" not in drawn[drawn.index("<svg") :]


def test_a_map_has_a_cell_for_each_layer_and_step_darker_where_the_norm_is_larger() -> None:
    rows = [Line("layers.0", [(1, 0.1), (2, 1.0)]), Line("layers.1", [(1, 10.0), (2, math.nan)])]
    cells = list(svg(heat_map("m", "M", rows)).iter("rect"))
    assert [float(cell.attrib["fill-opacity"]) for cell in cells] == [0.06, 0.53, 1.0]
    assert "layers.1, step 1: 10" in heat_map("m", "M", rows)
