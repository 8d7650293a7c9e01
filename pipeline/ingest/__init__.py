"""Ingest: from crawl files to parts, each record exactly one row.

Files, in reading order: `plan` (what there is to read, cut into tasks), `sources` (the files that a recipe's globs
name), `read` (the records of an input split, by `formats/`, out of `bytes/`), `records` (what a record is), `parts` (a
task's parts, from reading to receipts), `part_writer` (extract by `extract/`, measure, write), `part_file`,
`part_columns` and `measure_part` (measure columns beside a part), `receipts` (what makes a part count), `work_cleanup`.
Public: `plan.plan_tasks`, `parts.ingest_task`, `parts.load_parts`, `receipts.Receipt`, `receipts.PartRef`.
"""
