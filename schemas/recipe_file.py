"""A recipe's file: what it extends, and the modules of the user's own that lie beside it.

    extends: fineweb                    # a shipped recipe, by its name
    extends: ../base.yaml               # a file, from the folder of this one
    extends: our_package:recipes/web    # a file of an installed package, .yaml left out or not

Sections of the recipe that is extended are taken over, key by key; `sources` are taken whole, from the last that has
any. A rule that both have keeps its place in the order of testing; null turns it off.
"""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from schemas.config_model import ConfigError as RecipeError
from schemas.config_model import load_model, nearest, read_mapping
from schemas.recipe import BOUND_KINDS, Recipe, UserModule

__all__ = ["load_recipe"]

EXTENDS = "extends"
TAKEN_WHOLE = ("sources",)
DEEPEST = 16


def load_recipe(path: str, overrides: Iterable[str] = (), shipped: Mapping[str, Path] | None = None) -> Recipe:
    """The recipe at `path`, laid over what it extends and changed by `key.path=value` overrides.

    `shipped` are the recipes that may be extended by their bare names. Raises RecipeError with the place and the
    nearest known name.
    """
    folders = [Path(path).parent]

    def extend(data: dict[str, Any]) -> dict[str, Any]:
        return _extended(data, Path(path), shipped or {}, folders)

    recipe = load_model(path, Recipe, overrides, named="rules", unions=BOUND_KINDS, extend=extend)
    beside = [_with_source(module, folders) for module in recipe.modules]
    return recipe.model_copy(update={"modules": beside}) if beside else recipe


def _extended(
    data: dict[str, Any], path: Path, shipped: Mapping[str, Path], folders: list[Path], depth: int = 0
) -> dict[str, Any]:
    """A recipe's sections over those that it extends; notes the folder of each file on the way."""
    name = data.pop(EXTENDS, None)
    if name is None:
        return data
    if not isinstance(name, str):
        raise RecipeError(f"{path}: {EXTENDS}: {name!r} is not the name of a recipe or a file")
    if depth == DEEPEST:
        raise RecipeError(f"{path}: {EXTENDS}: {DEEPEST} recipes extend each other: one of them must extend itself")
    base = _find(name, path, shipped)
    folders.append(base.parent)
    return _laid_over(_extended(read_mapping(str(base)), base, shipped, folders, depth + 1), data)


def _find(name: str, path: Path, shipped: Mapping[str, Path]) -> Path:
    """The file of a recipe that is extended."""
    if name in shipped:
        return shipped[name]
    package, colon, inside = name.partition(":")
    if colon:
        try:
            folder = Path(str(files(package)))
        except (ModuleNotFoundError, TypeError, ValueError):
            raise RecipeError(f"{path}: {EXTENDS}: {name}: no package {package} is installed") from None
        found = folder / inside
    else:
        found = path.parent / Path(name).expanduser()
    for candidate in (found, found.with_name(f"{found.name}.yaml")):
        if candidate.is_file():
            return candidate
    known = f"; shipped: {', '.join(sorted(shipped))}" if shipped and not colon else ""
    near = nearest(name, shipped)
    raise RecipeError(f"{path}: {EXTENDS}: there is no recipe {name}" + (f"; did you mean {near}?" if near else known))


def _laid_over(base: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data` over `base`, section by section; keys keep the place that they have in `base`."""
    merged = dict(base)
    for key, value in data.items():
        below = merged.get(key)
        deep = isinstance(below, dict) and isinstance(value, dict) and key not in TAKEN_WHOLE
        merged[key] = _laid_over(below, value) if deep else value  # type: ignore[arg-type]
    return merged


def _with_source(module: UserModule, folders: Iterable[Path]) -> UserModule:
    """The module with the source of NAME.py beside the recipe or one that it extends, where there is such a file."""
    file = next((file for folder in folders if (file := folder / f"{module.name}.py").is_file()), None)
    if module.source is not None or file is None:
        return module
    try:
        return module.model_copy(update={"source": file.read_text(encoding="utf-8")})
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"modules: {file}: cannot read it: {error}") from None
