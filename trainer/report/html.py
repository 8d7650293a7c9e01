"""report.html of a training run: its curves, and what became of its data; written from metrics.jsonl alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from schemas import storage
from schemas.html_page import page
from schemas.text_format import bits, brief, count, duration, escape, number, plural, share
from trainer.report.charts import STYLE as CHART_STYLE
from trainer.report.charts import Line, Mark, heat_map, line_chart
from trainer.report.history import History, build_history
from trainer.report.metrics import METRICS, read_events

__all__ = ["write_report"]

REPORT = "report.html"
RECENT = 20  # steps whose mean is the loss of now
MANY = 60  # rows of a table, cards of a section: the last ones are shown, the rest counted

STYLE = """
.documents { list-style: none; margin: 10px 0 0; padding: 0; }
.documents li { padding: 5px 0; border-top: 1px solid var(--line); font-size: 13px; }
.when { color: var(--soft); font-size: 13px; }
.text b { font-weight: 600; }
.share { min-width: 120px; width: 30%; }
i.want { background: var(--gone); }
.wrap { overflow-wrap: anywhere; }
"""


def write_report(folder: str | Path) -> str:
    """Write report.html beside the metrics.jsonl of a run's folder; returns its path.

    Raises FileNotFoundError where there is no metrics.jsonl, ValueError for one that is none.
    """
    path = Path(folder) / REPORT
    history = build_history(read_events(Path(folder) / METRICS))
    storage.write(str(path), render(history).encode())
    return str(path)


def render(history: History) -> str:
    """The page as HTML; equal stories give equal bytes."""
    sections = [
        ("loss", "Loss", _loss(history)),
        ("course", "Course", _course(history)),
        ("layers", "Layers", _layers(history)),
        ("data", "Data", _data(history)),
        ("spikes", "Spikes", _spikes(history)),
        ("left-out", "Left out", _left_out(history)),
        ("samples", "Samples", _samples(history)),
        ("checkpoints", "Checkpoints", _checkpoints(history)),
        ("origin", "Origin", _origin(history)),
    ]
    footer = "Written by <code>python -m trainer</code> from metrics.jsonl."
    name = history.run.get("name", "run")
    return page(f"{name} \u00b7 Gristmill training", _head(history), sections, footer, CHART_STYLE + STYLE)


# ---------------------------------------------------------------- head and curves


def _head(history: History) -> str:
    losses = [value for value in history.columns["loss"][-RECENT:] if math.isfinite(value)]
    steps, ends = history.run.get("steps"), history.of("end")
    speeds = [value for value in history.columns["tokens_per_second"] if value == value]
    mfus = [value for value in history.columns["mfu"] if value == value]
    trained = sum(each["tokens"] for each in _mixture(history).values())
    tiles = [
        ("steps", count(history.done), f"of {count(steps)}" if steps else ""),
        (
            "training loss",
            f"{fmean(losses):.4g}" if losses else "\u2013",
            f"last {len(losses)}" if losses else "",
        ),
        *(_validation_tile(history)),
        ("tokens trained", brief(trained) if trained else "\u2013", ""),
        ("tokens a second", brief(median(speeds)) if speeds else "\u2013", ""),
        ("MFU", f"{100 * median(mfus):.1f}\u202f%" if mfus else "\u2013", "" if mfus else "device unknown"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    state = {"finished": "The run is finished.", "stopped": "The run was stopped and can go on."}
    # What ended it counts only as long as nothing came after.
    over = ends and not history.run.get("time", 0) > ends[-1].get("time", 0)
    status = state.get(ends[-1]["reason"], "") if over else "The run goes on, or was cut off."
    size = f" \u00b7 {brief(history.run['parameters'])} parameters" if "parameters" in history.run else ""
    return (
        f'<p class="maker">Gristmill \u00b7 training{size}</p><h1>{escape(history.run.get("name", "run"))}</h1>'
        f'<p class="claim">{status}{_claim(history)}</p><dl class="tiles">{cells}</dl>'
    )


def _validation_tile(history: History) -> list[tuple[str, str, str]]:
    evals = history.of("eval")
    if not evals:
        return []
    losses = [float(each["loss"]) for each in evals[-1]["sets"].values()]
    return [("validation loss", f"{fmean(losses):.4g}", plural(len(losses), "set"))]


def _claim(history: History) -> str:
    evals = history.of("eval")
    if len(evals) < 2:
        return ""
    name = next(iter(evals[-1]["sets"]))
    first = evals[0]["sets"].get(name, evals[-1]["sets"][name])
    return (
        f" Validation loss on {escape(name)} went from {float(first['loss']):.3f} to "
        f"<b>{float(evals[-1]['sets'][name]['loss']):.3f}</b>."
    )


def _marks(history: History) -> list[Mark]:
    marks = [Mark(each["step"], "spike", f"spike at step {count(each['step'])}") for each in history.of("spike")]
    marks += [Mark(each["to"], "turn", f"gone back to step {count(each['to'])}") for each in history.of("rewind")]
    return marks + [
        Mark(each["step"], "turn", f"resumed after {count(each['step'])} steps") for each in history.of("resume")
    ]


def _loss(history: History) -> str:
    lines = [Line("training", history.line("loss").points)]
    names = {name: None for event in history.of("eval") for name in event["sets"]}
    lines += [
        Line(
            f"validation {name}",
            [(e["step"], float(e["sets"][name]["loss"])) for e in history.of("eval") if name in e["sets"]],
        )
        for name in names
    ]
    chart = line_chart(
        "loss-curve", "Training and validation loss by step", lines[:5], _marks(history), wide=True, log=True
    )
    note = '<p class="lead">Nats a token. Many steps are drawn as their mean, over a band from lowest to highest.</p>'
    return f"{note}<figure>{chart}</figure>{_scores(history)}"


def _scores(history: History) -> str:
    if not history.of("eval"):
        return ""
    last = history.of("eval")[-1]
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{float(each["loss"]):.3f}</td>'
        f'<td class="n">{number(_float(each.get("perplexity")))}</td>'
        f'<td class="n">{number(_float(each.get("bits_per_byte")))}</td></tr>'
        for name, each in last["sets"].items()
    ]
    heads = (("validation", ""), ("loss", "n"), ("perplexity, no stride", "n"), ("bits a byte", "n"))
    return f'<h3 class="gap">After {count(last["step"])} steps</h3>{_table(heads, rows)}'


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _course(history: History) -> str:
    shares = {
        name: Line(name, [(step, 100 * value) for step, value in history.line(name).points])
        for name in ("mfu", "data_wait")
    }
    charts = [
        ("rate", "Learning rate", history.line("learning_rate"), False),
        ("norm", "Gradient norm", history.line("gradient_norm"), True),
        ("speed", "Tokens a second", history.line("tokens_per_second"), False),
        ("wait", "Waiting for data, % of the time", shares["data_wait"], False),
        ("mfu", "MFU, %", shares["mfu"], False),
    ]
    figures = [
        f"<figure><h3>{title}</h3>{line_chart(name, title, [line], _marks(history) if marked else (), log=marked)}"
        for name, title, line, marked in charts
        if line.points
    ]
    return f'<div class="two">{"</figure>".join(figures)}</figure></div>' if figures else ""


def _layers(history: History) -> str:
    names = {name: None for _, norms in history.norms for name in norms}
    if not names:
        return ""
    rows = [Line(name, [(step, norms[name]) for step, norms in history.norms if name in norms]) for name in names]
    lead = '<p class="lead">The norm of each layer\u2019s gradient over the run: the darker, the larger.</p>'
    return f"{lead}<figure>{heat_map('layer-norms', 'Gradient norms by layer and step', rows)}</figure>"


# ---------------------------------------------------------------- the data


def _mixture(history: History) -> dict[str, dict[str, Any]]:
    return history.of("mixture")[-1]["sources"] if history.of("mixture") else {}


def _data(history: History) -> str:
    held, given = history.run.get("sources", {}), _mixture(history)
    if not held and not given:
        return ""
    total = sum(each["tokens"] for each in given.values())
    rows = []
    for name in dict.fromkeys([*held, *given]):
        weight, tokens = float(held.get(name, {}).get("weight", 0)), given.get(name, {}).get("tokens", 0)
        real = tokens / total if total else 0.0
        bars = "".join(
            f'<span class="bar" aria-hidden="true"><i class="{kind}" style="width:{100 * part:.2f}%"></i></span>'
            for kind, part in (("want", weight), ("keep", real))
        )
        size = brief(held.get(name, {}).get("tokens", 0))
        rows.append(
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="n">{100 * weight:.1f}\u202f%</td>'
            f'<td class="n">{share(tokens, total)}</td><td class="share wide-only">{bars}</td>'
            f'<td class="n">{brief(tokens)}</td><td class="n wide-only">{size}</td>'
            f'<td class="n">{given.get(name, {}).get("epochs", 0):.2f}</td></tr>'
        )
    heads = (
        ("source", ""), ("target", "n"), ("realised", "n"), ("", "wide-only"), ("tokens trained", "n"),
        ("it holds", "n wide-only"), ("epochs", "n"),
    )  # fmt: skip
    key = '<ul class="key wide-only"><li><i class="want"></i>target</li><li><i class="keep"></i>realised</li></ul>'
    lead = '<p class="lead">How the batches were mixed, in tokens, and how often each source was gone through.</p>'
    return f"{lead}{key}{_table(heads, rows)}"


def _spikes(history: History) -> str:
    spikes = history.of("spike")
    if not spikes:
        return ""
    cards = "".join(_spike_card(each) for each in spikes[-MANY:])
    more = f'<p class="soft">and {plural(len(spikes) - MANY, "earlier spike")}</p>' if len(spikes) > MANY else ""
    lead = '<p class="lead">Steps far outside of what was usual, and the documents with the highest loss in them.</p>'
    return f'{lead}<div class="cards">{cards}</div>{more}'


def _spike_card(spike: dict[str, Any]) -> str:
    did = {"log": "trained all the same", "skip": "skipped", "rewind": "gone back before it"}
    documents, total = spike.get("documents", []), spike.get("num_documents", 0)
    items = "".join(
        f'<li><span class="url">{escape(each.get("url") or each.get("id") or "")}</span>'
        f'<span class="soft">{escape(each.get("source", ""))}</span></li>'
        for each in documents
    )
    rest = f'<li class="soft">and {plural(total - len(documents), "more")}</li>'.replace("mores", "more")
    return (
        f'<article class="card"><header>step {count(spike["step"])} \u00b7 batch {count(spike["batch"])} \u00b7 '
        f"{escape(did.get(spike['action'], spike['action']))}</header>"
        f"<b>loss {number(float(spike['loss']))}, gradient norm {number(float(spike['gradient_norm']))}</b>"
        f'<p class="soft">{escape(spike["reason"])}</p>'
        f'<ul class="documents">{items}{rest if total > len(documents) else ""}</ul></article>'
    )


def _left_out(history: History) -> str:
    rows = [(each["step"], f"batch {count(each['batch'])} skipped", each["reason"]) for each in history.of("skip")]
    for each in history.of("rewind"):
        batches = f"{plural(len(each['batches']), 'batch').replace('batchs', 'batches')}: {_ranges(each['batches'])}"
        rows.append((each["to"], "gone back", f"to {each['checkpoint']}, past {batches}"))
    rows += [
        (each["step"], f"shard of {each['source']} lost", f"{each['shard']}: its rows have no targets from here on")
        for each in history.of("lost")
    ]  # fmt: skip
    if not rows:
        return ""
    cells = [
        f'<tr><td class="n">{count(step)}</td><td class="whole">{escape(what)}</td>'
        f'<td class="wrap">{escape(why)}</td></tr>'
        for step, what, why in sorted(rows)[-MANY:]
    ]
    note = f'<p class="soft">{plural(history.taken_back, "step")} were taken back.</p>' if history.taken_back else ""
    return f"{_table((('step', 'n'), ('what', ''), ('why', '')), cells)}{note}"


def _ranges(numbers: Sequence[int]) -> str:
    """7, 8, 9, 12 as `7 to 9, 12`."""
    ranges: list[list[int]] = []
    for value in sorted(numbers):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(count(low) if low == high else f"{count(low)} to {count(high)}" for low, high in ranges)


def _samples(history: History) -> str:
    samples = history.of("sample")
    cards = "".join(
        f'<article class="card"><header>after {count(each["step"])} steps</header>'
        f'<p class="text{" short" if len(each["text"]) < 500 else ""}"><b>{escape(each["prompt"])}</b>'
        f"{escape(each['text'])}</p></article>"
        for each in reversed(samples[-MANY:])
    )
    lead = '<p class="lead">How the model went on from a prompt, the latest first.</p>'
    return f'{lead}<div class="cards">{cards}</div>' if cards else ""


# ---------------------------------------------------------------- checkpoints and origin


def _checkpoints(history: History) -> str:
    rows = [
        (
            each["time"],
            each["step"],
            "checkpoint",
            f"{each['path']} ({bits(each['bytes'])} in {duration(each['seconds'])})",
        )
        for each in history.of("checkpoint")
    ]
    for each in history.of("resume"):
        note = f"; {each['note']}" if each.get("note") else ""
        rows.append((each["time"], each["step"], "resumed", f"{each['checkpoint']}{note}"))
    rows += [(each["time"], each["step"], each["reason"], "") for each in history.of("end")]
    if not rows:
        return ""
    cells = [
        f'<tr><td class="n">{count(step)}</td><td class="whole">{escape(what)}</td>'
        f'<td class="wrap">{escape(where)}</td></tr>'
        for _, step, what, where in sorted(rows)[-MANY:]
    ]
    return _table((("steps done", "n"), ("what", ""), ("where", "")), cells)


def _origin(history: History) -> str:
    run = history.run
    facts = [(name, run.get(name)) for name in ("seed", "device", "world", "parameters", "flops_per_token")]
    rows = [
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td class="wrap">'
        f"{escape(f'{value:,}' if isinstance(value, int) else value)}</td></tr>"
        for name, value in facts
        if value is not None
    ]
    for each in run.get("datasets", []):
        name = f"dataset {each['name']}" if each.get("name") else "dataset"
        what = f"{each['uri']}, generation {each['generation']}, order digest {each['order_digest']}"
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td class="hex">{escape(what)}</td></tr>')
    config = (
        f'<h3 class="gap">Configuration</h3><pre class="recipe">{escape(run["config"])}</pre>'
        if "config" in run
        else ""
    )
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>{config}' if rows else config


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col" class="{kind}">{escape(text)}</th>' for text, kind in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
