"""Measure: numbers about each text, in signal groups, stored once; rules compare them with thresholds later.

Files, in reading order: `signal_group` (what a signal, a rule and a group are), `registry` (those of a recipe),
`configured_groups` (a group with its options and key), `resolved_rules` (a rule with its threshold), `built_in` (ours),
`user_modules` and `scores` (the user's), `measure` (a batch of texts through every wanted group),
`counts`, `raw_counts` and `c4_counts` (compiled passes); a module a source of rules: `gopher`, `repetition`, `c4`,
`c4_lines`, `fineweb`, `language` with `fasttext/`, `urls`, `pii`; `minhash/` signs `final_text`; `assets` are files.
Public: `signal_group`, `registry`, `measure`.
"""
