"""The pages of the repository's own crawl."""

from pathlib import Path

from pipeline.ingest.plan import plan_tasks
from pipeline.ingest.read import read_piece
from schemas.recipe import Read, Source

CRAWL = Path(__file__).parents[1] / "data/crawl/web"


def sample_pages() -> list[tuple[str, bytes, str | None]]:
    """URL, body and declared charset of each HTML page."""
    source = Source(root=str(CRAWL), inputs=["**/*.warc.gz"])
    tasks = plan_tasks({"crawl": source}, Read(), "pages")
    records = [record for task in tasks for piece in task.pieces for record in read_piece(piece, source, Read())]
    return [
        (record.url or "", record.body or b"", record.charset)
        for record in records
        if record.rule is None and record.mime == "text/html"
    ]
