"""What the user sees of a failure: one message and an exit code, or a traceback where the fault is ours."""

import re
from types import MappingProxyType

__all__ = ["user_error"]

# Exit codes of the exceptions that carry a message for the user, by class name: a failure inside a worker reaches
# the driver as text. The most specific classes stand first.
CODES = MappingProxyType(
    {
        "ConfigError": 2,
        "TokenizerError": 2,
        "DatasetError": 1,
        "CommitRefused": 1,
        "NothingKept": 1,
        "ConservationError": 1,
        "StorageError": 1,
        "FileExistsError": 1,
        "FileNotFoundError": 1,
        "PermissionError": 1,
        "OSError": 1,
        "ValueError": 2,
    }
)
_WORKER = re.compile(r"(?:^|[\s.])(" + "|".join(CODES) + r"): (.+?)(?: \[while running|\n|$)")


def user_error(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code of an exception that a user caused; (None, 1) for a defect of ours."""
    for kind in type(error).__mro__:
        if kind.__name__ in CODES:
            return " ".join(str(error).split()) if kind.__name__ != "ConfigError" else str(error), CODES[kind.__name__]
    if isinstance(error, RuntimeError):
        found = _WORKER.findall(str(error))
        if found:
            name, message = found[-1]
            # A worker met data or a store, never the command line.
            return message.strip(), 1 if name != "ConfigError" else CODES[name]
    return None, 1
