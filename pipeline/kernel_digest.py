"""A digest of the code that a module's functions run: its own source and, recursively, those that it imports.

It is the version of what compiled functions compute and the name of the folder that caches them (`numba_kernels`): a
change of any helper gives another digest, by itself. Data that shape the result count too: the files of
`pipeline/assets` that a source names.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

__all__ = ["kernel_digest"]

PIPELINE = Path(__file__).parent

# Read by pattern, not parsed: a tenth of the time, in every process that starts. A name that only a comment mentions
# is taken for an import as well, which does no harm.
FROM_IMPORT = re.compile(r"\bfrom\s+([\w.]+)\s+import\s+(\([^)]*\)|(?:[^\n]*\\\n)*[^\n]*)")
DOTTED = re.compile(r"\b\w+(?:\.\w+)+")
NAME = re.compile(r"\w+")
FILE_NAME = re.compile(r"""["']([\w-]+(?:\.[\w-]+)+)["']""")


def kernel_digest(module_names: Iterable[str]) -> str:
    """Return 32 hex digits over the sources of modules and of what they import of `pipeline` and their own packages.

    A source is read once in a process. Raises ValueError for a module that has no source file.
    """
    return _digest(tuple(sorted(set(module_names))))


@functools.cache
def _digest(module_names: tuple[str, ...]) -> str:
    found: dict[str, str] = {}  # content digests by module or asset name
    waiting = list(module_names)
    for name in module_names:
        if _source_file(name) is None:
            raise ValueError(f"module {name} has no source file: expected a Python file whose digest can be taken")
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported, assets = _source(name)
            waiting.extend(imported)
            found.update((f"assets/{asset}", _file_digest(PIPELINE / "assets" / asset)) for asset in assets)
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(found):
        total.update(f"{name} {found[name]}\n".encode())
    return total.hexdigest()


@functools.cache
def _source(name: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the digest of a module's source, the modules that it names, and the asset files that it names."""
    file = _source_file(name)
    assert file is not None
    text = file.read_text(encoding="utf-8")
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    imported = sorted({module for module in _mentioned(text, package) if module != name})
    assets = sorted({asset for asset in FILE_NAME.findall(text) if (PIPELINE / "assets" / asset).is_file()})
    return _file_digest(file), tuple(imported), tuple(assets)


def _mentioned(text: str, package: str) -> Iterator[str]:
    """Yield the modules of `pipeline` and of the source's own package that a source names."""
    packages = ("pipeline", package.partition(".")[0])
    for match in FROM_IMPORT.finditer(text):
        module, names = _absolute(match[1], package), NAME.findall(match[2])
        if module.partition(".")[0] not in packages or _source_file(module) is None:
            continue
        members = [f"{module}.{name}" for name in names if _source_file(f"{module}.{name}")]
        yield from members
        if len(members) < len(names):  # something that the module itself defines
            yield module
    for dotted in DOTTED.findall(text):
        if dotted.partition(".")[0] in packages and _source_file(dotted):
            yield dotted


def _absolute(module: str, package: str) -> str:
    name = module.lstrip(".")
    levels_up = len(module) - len(name) - 1
    if levels_up < 0:
        return module
    base = package.rsplit(".", levels_up)[0] if levels_up else package
    return f"{base}.{name}" if name else base


@functools.cache
def _source_file(name: str) -> Path | None:
    """Return the file of a module below a package that can be imported, without importing the module."""
    top, _, rest = name.partition(".")
    root = _top_level(top)
    if root is None:
        return None
    if not rest:
        return root
    if root.name != "__init__.py":
        return None
    path = root.parent.joinpath(*rest.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@functools.cache
def _top_level(name: str) -> Path | None:
    if name == "pipeline":
        return PIPELINE / "__init__.py"
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module that says nothing of itself, like __main__
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _file_digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
