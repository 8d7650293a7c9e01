"""Signal groups and rules of the user's own: modules that a recipe lists, and packages that offer some.

A module is a plain file beside the recipe, whose source the recipe carries to every worker, or a module that is
installed wherever workers run. It holds GROUPS, a list of `SignalGroup`, and RULES, a list of `Rule`; either may be
missing. An installed package may name such a module as an entry point of the group `gristmill.signals`: its groups are
measured when a recipe names one of their signals or rules.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from pipeline.measure.signal_group import Rule, SignalGroup

__all__ = ["ENTRY_POINTS", "UserGroups", "load_entry_points", "load_module"]

ENTRY_POINTS = "gristmill.signals"


@dataclass(frozen=True)
class UserGroups:
    """What one module gives."""

    module: str
    sha256: str  # of its source
    groups: tuple[SignalGroup, ...]
    rules: tuple[Rule, ...]


@functools.lru_cache(maxsize=64)
def load_module(name: str, source: str | None) -> UserGroups:
    """The groups and rules of a module: of `source`, or installed.

    Raises ValueError, in one line, for a module that cannot be imported or holds something else.
    """
    place = f"modules: {name}"
    try:
        module, sha256 = _from_source(name, source) if source is not None else _installed(name)
    except ModuleNotFoundError as error:
        if source is None and error.name and name.startswith(error.name):
            raise ValueError(
                f"{place}: there is no file {name}.py beside the recipe, and no module of that name is installed"
            ) from None
        raise ValueError(f"{place}: it imports {error.name}, which is not installed") from error
    except Exception as error:  # whatever a module of the user's raises when it is imported
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        message = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"{place}: it cannot be imported: {type(error).__name__}: {message}{line}") from error
    groups = _checked(place, module, "GROUPS", SignalGroup)
    rules = _checked(place, module, "RULES", Rule)
    if not groups and not rules:
        raise ValueError(f"{place}: it has neither GROUPS nor RULES: give a list of SignalGroup or of Rule")
    return UserGroups(name, sha256, groups, rules)


def load_entry_points() -> list[UserGroups]:
    """What the installed packages offer, by name of their entry points. Raises ValueError as `load_module` does."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value))
    return [load_module(point.value.partition(":")[0], None) for point in found]


def _checked(place: str, module: ModuleType, name: str, kind: type) -> tuple:
    found = getattr(module, name, ())
    if not isinstance(found, list | tuple) or not all(isinstance(each, kind) for each in found):
        raise ValueError(f"{place}: {name} is not a list of {kind.__name__}")
    return tuple(found)


def _installed(name: str) -> tuple[ModuleType, str]:
    module = importlib.import_module(name)
    origin = module.__file__
    if origin is None or not origin.endswith(".py"):
        raise ValueError("it has no Python source, whose digest is part of its signals' version")
    path = Path(origin)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path.parent).as_posix()} ".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return module, digest.hexdigest()


def _from_source(name: str, source: str) -> tuple[ModuleType, str]:
    """The module of a source that a recipe carries, run from a file of its own: so tracebacks show its lines."""
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    path = _folder() / f"{name}-{sha256[:16]}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != source:
        unfinished = path.with_suffix(f".{secrets.token_hex(4)}")
        unfinished.write_text(source, encoding="utf-8")
        unfinished.replace(path)
    full_name = f"gristmill_modules.{name}_{sha256[:16]}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module  # where dataclasses and the like look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module, sha256


@functools.cache
def _folder() -> Path:
    """A folder for sources, of this user alone: nobody else may put a file there that runs."""
    folder = Path(tempfile.gettempdir()) / f"gristmill-modules-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        folder = Path(tempfile.mkdtemp(prefix="gristmill-modules-"))
    return folder
