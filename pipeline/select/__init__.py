"""Select: a verdict for every row of every part, from stored numbers alone.

Files, in reading order: `select` (the steps, top to bottom), `context` (what each of them knows), `rules` (what is
decided of a row by itself), `exact/` (repeated records, equal texts), `near/` (near duplicates: bands, verified pairs,
clusters), `decision/` (survivors, split, verdicts, funnel); beneath them `documents`, `columns`, `rows`, `files`.
Public: `select.select`, `select.verdict_uri`, `decision.funnel.load_funnel`, `files.decision_root`.
"""
