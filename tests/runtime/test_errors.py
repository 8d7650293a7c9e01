"""A user's mistake is one line and an exit code; a defect of ours keeps its traceback."""

from pipeline.ingest.records import ConservationError
from pipeline.runtime.errors import user_error
from schemas.recipe import RecipeError
from schemas.storage import StorageError


def test_each_kind_of_fault_has_its_exit_code() -> None:
    assert user_error(RecipeError("a\nb")) == ("a\nb", 2)
    assert user_error(ValueError("min=5\n  exceeds")) == ("min=5 exceeds", 2)
    assert user_error(StorageError("full")) == ("full", 1)
    assert user_error(ConservationError("lost")) == ("lost", 1)


def test_a_defect_is_no_message() -> None:
    assert user_error(AssertionError("ours")) == (None, 1)
    assert user_error(KeyError("ours")) == (None, 1)
    assert user_error(RuntimeError("Traceback ... KeyError: 'x'")) == (None, 1)


def test_a_workers_fault_is_found_in_the_text_that_reaches_the_driver() -> None:
    text = (
        "Error received from SDK harness: Traceback (most recent call last):\n  File x, line 3\n"
        "OSError: [Errno 28] No space left\n\nThe above exception was the direct cause:\n"
        "schemas.object_stores.StorageError: out/x: the disk is full: free some space [while running 'IngestTasks-7']\n"
    )
    assert user_error(RuntimeError(text)) == ("out/x: the disk is full: free some space", 1)
