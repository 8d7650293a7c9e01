"""Report: a dataset for people who would rather look than read, and what `decide` changed.

Files, in reading order: `report` (from opening the dataset to writing the page), `scan_ledgers` (one pass that counts
and chooses examples), `find`, `part_files`, `sample_texts` (their texts), `report_data` (all of it as plain numbers),
then what draws: `page`, `funnel`, `charts`, `tables`, `document_cards`, `difference`, `style`; `checks` and `labels`
say what rules and reasons mean; `decisions` compares two decisions.
Public: `report.write_report`, `decisions.decision_diff`, `labels.meaning`.
"""
