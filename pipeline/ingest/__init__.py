"""Ingest: from crawl files to parts, each record exactly one row.

Files, in reading order: `plan` (what there is to read, cut into tasks), `sources` (the files that a recipe's globs
name), `read` (the records of an input split, by `formats/`, out of `bytes/`), `records` (what a record is), `parts`
(a task's parts, from reading to their receipts), `part_writer` (extract by `extract/`, measure, write), `part_file`
(the file), `receipts` (what makes a part count as made), `work_cleanup` (what killed workers left).
Public: `plan.plan_tasks`, `parts.ingest_task`, `parts.load_parts`, `receipts.Receipt`, `receipts.PartRef`.
"""
