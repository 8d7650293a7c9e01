"""Formats of crawl files: each module turns bytes or rows into the records that they hold.

Archives: `warc_headers`, `warc`, `media_types`. Lines and values: `plain_boundaries`, `jsonl`, `json_values`,
`json_document`, `csv_rows`, `text_file`. Columns: `rows`, `parquet`, `arrow`. `fields` finds what a recipe names.
Public: `WarcRecords`, `LineRecords`, `ParquetRows` and their like, all used by `ingest/read.py` alone.
"""
