"""What Beam logs on a good day, left out, so that a line on the terminal means something."""

import logging

__all__ = ["quiet_beam", "quiet_worker"]

# These repeat, with a page of context each, what the exception of a failed job says anyway.
ECHOES = ("apache_beam.runners", "apache_beam.utils.subprocess_server")
# Dataflow tells here where its job can be watched.
HEARD = "apache_beam.runners.dataflow"


def quiet_beam() -> None:
    """For the driver, before Beam is imported."""
    logging.getLogger().addFilter(_is_news)
    for name in ECHOES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger(HEARD).setLevel(logging.INFO)


def quiet_worker() -> None:
    """For a local worker process: its stderr is the driver's terminal."""
    quiet_beam()
    # A handler keeps logging from making one that writes to stderr; records still go to the driver.
    logging.getLogger().addHandler(logging.NullHandler())


def _is_news(record: logging.LogRecord) -> bool:
    """Not what every import of Beam says without Google's clients, nor a Java job's echo of a worker's exception."""
    return not record.getMessage().startswith(("apitools not found", "java.", "org.apache."))
