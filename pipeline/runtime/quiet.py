"""Beam without what it logs on a good day, and without what it imports for others.

Nothing stays hidden: what is kept out of Beam's own import can be imported by anyone afterwards.
"""

import logging
import sys
from collections.abc import Sequence

__all__ = ["import_beam", "quiet_beam", "quiet_worker"]

# These repeat, with a page of context each, what the exception of a failed job says anyway.
ECHOES = ("apache_beam.runners", "apache_beam.utils.subprocess_server", "grpc._server")
# Dataflow logs here where its job can be watched.
SHOWN = "apache_beam.runners.dataflow"
# What Beam imports where it is there, and does without where it is not.
NOT_NEEDED = ("pandas", "pymongo")
GOOGLE = ("google.cloud", "google.auth", "google.api_core")


def quiet_beam() -> None:
    """For the driver, before Beam is imported."""
    logging.getLogger().addFilter(_is_news)
    for name in ECHOES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger(SHOWN).setLevel(logging.INFO)
    # It warns that pymongo is not there.
    logging.getLogger("apache_beam.io.mongodbio").setLevel(logging.ERROR)


def import_beam(beam_options: Sequence[str] = ()) -> None:
    """Import Beam without what only its other users need: a second less for each command and worker that starts.

    Google's clients stay out too, unless an option speaks of Google's services: storage is our own affair.
    """
    google = any("dataflow" in option.lower() or "gs://" in option for option in beam_options)
    names = NOT_NEEDED if google else (*NOT_NEEDED, *GOOGLE)
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        import apache_beam  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


def quiet_worker() -> None:
    """For a local worker process: its stderr is the driver's terminal."""
    quiet_beam()
    # A handler keeps logging from making one that writes to stderr; records still go to the driver.
    logging.getLogger().addHandler(logging.NullHandler())


def _is_news(record: logging.LogRecord) -> bool:
    """Not what every import of Beam says without Google's clients, nor a Java job's echo of a worker's exception."""
    return not record.getMessage().startswith(("apitools not found", "java.", "org.apache."))
