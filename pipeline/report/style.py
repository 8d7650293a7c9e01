"""What the dataset report adds to the shared style sheet (`schemas/html_page.py`): funnel, verdicts, differences."""

__all__ = ["STYLE"]

STYLE = """
svg .small { fill: var(--soft); font-size: 13px; }
svg .small .figure { fill: var(--ink); }
svg .big { font-size: 25px; font-weight: 600; }
svg .big .soft { font-size: 15px; font-weight: 400; fill: var(--soft); }
svg .mid { font-size: 17px; font-weight: 600; }
svg .mid .small { font-weight: 400; }
svg .drop { font-weight: 600; font-size: 14px; }
path.keep, rect.keep { fill: var(--keep); } rect.gone { fill: var(--gone); } rect.dup { fill: var(--dup); }
text.rule { fill: var(--rule-ink); } text.dup { fill: var(--dup-ink); } text.read { fill: var(--read-ink); }
.at-rule { stop-color: var(--rule); } .at-dup { stop-color: var(--dup); } .at-read { stop-color: var(--read); }
.funnel-narrow { display: none; max-width: 460px; }
tr.stage th { padding-top: 20px; font-weight: 600; font-size: 13px; border-bottom-color: var(--soft); }
tr.idle td, tr.idle th { color: var(--soft); }
.verdict { display: block; font-size: 13px; color: var(--rule-ink); }
ins { background: var(--mark-in); text-decoration: none; } del { background: var(--mark-out); text-decoration: none; }
details { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: 10px 0; display: grid; grid-template-columns: auto auto 1fr auto;
  column-gap: 12px; align-items: baseline; }
summary::before { content: "\\25B8"; color: var(--soft); width: 0.8em; }
details[open] > summary::before { content: "\\25BE"; }
summary::-webkit-details-marker { display: none; }
summary code { font-size: 14.5px; overflow-wrap: anywhere; }
summary .n { color: var(--soft); font-size: 14px; font-variant-numeric: tabular-nums; }
details .cards { margin: 4px 0 20px; }
.duplicates { list-style: none; padding: 0; margin: 10px 0 0; font-size: 13px; }
.duplicates li { padding: 5px 0; border-top: 1px solid var(--line); }
.pair { max-height: 22em; }
@media (max-width: 720px) {
  .funnel-wide { display: none; } .funnel-narrow { display: block; }
  summary { grid-template-columns: auto 1fr auto; }
  summary .n { grid-row: 1; grid-column: 3; } summary .label { grid-row: 2; grid-column: 2 / 4; }
}
@media print { details > * { display: block; } }
"""
