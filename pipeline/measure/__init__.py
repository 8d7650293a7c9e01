"""Measure: numbers about each text, stored once; rules compare them with thresholds later.

Files, in reading order: `registry` (every signal and rule), `measure` (one pass over a batch of texts), `counts` (what
signals are computed from), then a module for each source of rules: `gopher` with `repetition`, `c4` with `c4_lines`,
`fineweb`, `language` with `fasttext/`, `urls`, `pii`; `minhash/` signs texts; `assets` checks the files a recipe names.
Public: `measure.Measurer`, `registry.SIGNALS`, `registry.RULES`, `registry.resolve_rules`.
"""
