"""The look of every report: one file without scripts, links to the outside or anything fetched.

Colours mean the same in every figure: kept (or trained on), turned away by a rule, a duplicate, turned away while
reading.
"""

from collections.abc import Sequence

from schemas.text_format import escape

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark;
  --page: #fbf9f4; --card: #ffffff; --sunk: #f3efe6; --line: #e2dccf; --ink: #24211b; --soft: #6b6457;
  --keep: #2f7a63; --rule: #c4613a; --read: #8b8478; --dup: #b8862b; --gone: #dcc7b4;
  --keep-ink: #1f6350; --rule-ink: #a44a27; --read-ink: #645e54; --dup-ink: #835c12; --mark-in: #d5ebdf;
  --mark-out: #f6d9cb; }
@media (prefers-color-scheme: dark) { :root {
  --page: #171613; --card: #1f1d19; --sunk: #272520; --line: #383529; --ink: #ece7db; --soft: #a49c8c;
  --keep: #57ab8d; --rule: #d97f57; --read: #7d776b; --dup: #cda04a; --gone: #5b4c40;
  --keep-ink: #84cfb3; --rule-ink: #eb9d7a; --read-ink: #aaa294; --dup-ink: #e2bd74; --mark-in: #1f4a3b;
  --mark-out: #5a2f1e; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif; }
main, header.top { max-width: 1180px; margin: 0 auto; padding: 0 28px; }
h1, h2, h3 { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Noto Serif", Georgia, serif;
  line-height: 1.2; text-wrap: balance; }
h1 { font-size: 44px; margin: 6px 0 10px; font-weight: 600; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 28px; font-weight: 600; margin: 0 0 6px; }
h3 { font-size: 18px; font-weight: 600; margin: 0 0 8px; }
p { margin: 0 0 12px; max-width: 72ch; }
section { padding: 40px 0 8px; border-top: 1px solid var(--line); margin-top: 36px; scroll-margin-top: 44px; }
section:first-of-type { border-top: 0; margin-top: 0; padding-top: 30px; }
.lead { color: var(--soft); }
.soft { color: var(--soft); }
.maker { font-size: 13px; letter-spacing: 0.08em; text-transform: uppercase; color: var(--soft); margin: 36px 0 0; }
.claim { font-size: 20px; max-width: 62ch; }
.claim b { font-weight: 650; color: var(--keep-ink); }
nav { position: sticky; top: 0; z-index: 2; background: var(--page); border-bottom: 1px solid var(--line); }
nav ul { max-width: 1180px; margin: 0 auto; padding: 0 28px; display: flex; gap: 22px; list-style: none;
  overflow-x: auto; scrollbar-width: none; }
nav a { display: block; padding: 10px 0; color: var(--soft); text-decoration: none; font-size: 14px;
  white-space: nowrap; }
nav a:hover, nav a:focus-visible { color: var(--ink); }
a { color: var(--keep-ink); }
:focus-visible { outline: 2px solid var(--keep); outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px;
  background: var(--line);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; margin: 26px 0 30px; padding: 0; }
.tiles div { background: var(--card); padding: 14px 18px 12px; }
.tiles dt { font-size: 13px; color: var(--soft); }
.tiles dd { margin: 0; font-size: 27px; line-height: 1.25; font-variant-numeric: tabular-nums; font-weight: 550;
  letter-spacing: -0.01em; }
.tiles dd small { font-size: 14px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
figure { margin: 22px 0 0; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 8px; max-width: 72ch; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--ink); font-size: 13px; font-variant-numeric: tabular-nums; }
svg .tick { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .hover { fill: transparent; }
svg g:hover > .hover { fill: var(--sunk); }
.chart { max-width: 600px; }
.gap { margin-top: 36px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 36px 44px; }
.scroll { overflow-x: auto; margin: 16px 0 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; padding: 6px 14px 6px 0;
  border-bottom: 1px solid var(--line); vertical-align: bottom; }
td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.n, td.n { text-align: right; } td.n, .whole { white-space: nowrap; }
tbody th { overflow-wrap: anywhere; }
td.name { overflow-wrap: anywhere; }
tbody th { color: var(--ink); font-weight: 400; font-size: 14px; vertical-align: top; }
.label { color: var(--soft); display: block; font-size: 13px; }
.bar { display: flex; width: 100%; min-width: 90px; height: 12px; margin-top: 4px; background: var(--sunk);
  border-radius: 2px; overflow: hidden; }
.bar i { display: block; height: 100%; min-width: 1px; }
i.keep { background: var(--keep); } i.rule { background: var(--rule); } i.read { background: var(--read);
  } i.dup { background: var(--dup); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; margin: 12px 0 0;
  font-size: 13px; color: var(--soft); }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px;
  vertical-align: -1px; }
i.gone { background: var(--gone); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 18px;
  margin-top: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  min-width: 0; }
.card header { font-size: 13px; color: var(--soft); margin-bottom: 8px; }
.url { display: block; color: var(--ink); font-size: 13.5px; overflow-wrap: anywhere; unicode-bidi: isolate; }
.text { margin: 0; font-size: 14px; line-height: 1.45; white-space: pre-wrap; tab-size: 2; overflow-wrap: anywhere;
  max-height: 15.9em; overflow: hidden;
  -webkit-mask-image: linear-gradient(#000 72%, transparent); mask-image: linear-gradient(#000 72%, transparent); }
.text.short { -webkit-mask-image: none; mask-image: none; }
code, pre { font-family: ui-monospace, SFMono-Regular, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: 0.92em; }
pre.recipe { background: var(--sunk); border-radius: 8px; padding: 16px; overflow-x: auto; font-size: 13px;
  line-height: 1.5; }
.hex { overflow-wrap: anywhere; }
.note { background: var(--sunk); border-radius: 8px; padding: 12px 16px; font-size: 14px; max-width: none; }
footer { color: var(--soft); font-size: 13px; padding: 28px 0 60px; }
@media (max-width: 720px) {
  main, header.top, nav ul { padding-left: 18px; padding-right: 18px; }
  h1 { font-size: 32px; } h2 { font-size: 24px; } .claim { font-size: 18px; }
  .wide-only { display: none; }
  svg .tick { font-size: 16px; } .bar { min-width: 56px; }
  th, td { padding-right: 10px; }
  .tiles { grid-template-columns: 1fr 1fr; }
}
@media print { nav { display: none; } body { background: none; } }
"""


def page(title: str, header: str, sections: Sequence[tuple[str, str, str]], footer: str, style: str = "") -> str:
    """The page as HTML; equal arguments give equal bytes.

    `sections` are (anchor, title, body); one with an empty body is left out. `title` and the sections' titles are
    escaped here, everything else is ready HTML. `style` is appended to the house's own sheet.
    """
    shown = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name, _ in shown)
    bodies = "".join(f'<section id="{anchor}"><h2>{escape(name)}</h2>{body}</section>' for anchor, name, body in shown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Should a string of the crawl ever become markup after all, it still could neither run nor fetch anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>"
        f'<header class="top">{header}</header><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"<main>{bodies}<footer>{footer}</footer></main></body></html>\n"
    )
