"""Closed configuration models: YAML in, a validated model out, faults named by place and nearest known name.

The recipe of a dataset and the configuration of a training are both read here.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

__all__ = ["ConfigError", "Section", "load_model"]

M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration cannot be used: its message says where and why (exit code 2)."""


class Section(BaseModel):
    """A part of a configuration: immutable, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_model(
    path: str, model: type[M], overrides: Iterable[str] = (), named: str | None = None, unions: tuple[str, ...] = ()
) -> M:
    """The model in the YAML file `path`, changed by `key.path=value` overrides.

    `named` is a section whose keys have dots of their own; `unions` are names that pydantic puts into the place of
    a fault and no user wrote. Raises ConfigError with the place and the nearest known name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read it: {error}") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected, this is {type(data).__name__}")
    for override in overrides:
        _override(data, override, named)
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        faults = [f"{path}: {_explain(model, fault, named, unions)}" for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where plain YAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _override(data: dict[str, Any], override: str, named: str | None) -> None:
    """Set one `key.path=value` in place; the value is YAML."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"{override}: write key.path=value, as in split.validation=0.02")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override}: the value is not YAML: {' '.join(str(error).split())}") from None
    place: Any = data
    section, _, rest = path.partition(".")
    # Everything after the name of such a section is one key.
    keys = [section, rest] if section == named and rest else path.split(".")
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ConfigError(f"{override}: {key} is not a section")
    place[keys[-1]] = parsed


def _explain(model: type[BaseModel], fault: Any, named: str | None, unions: tuple[str, ...]) -> str:
    """One validation fault as `place: what is wrong`, with the nearest known name for an unknown key."""
    place = [str(step) for step in fault["loc"]]
    if place[:1] == [named] and len(place) > 2 and place[2] in unions:
        del place[2]
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return f"{'.'.join(place)}: unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if fault["type"] in ("missing", "value_error") else f" (got {fault['input']!r})"
    return f"{'.'.join(place)}: {message}{given}" if place else f"{message}{given}"


def _known_keys(annotation: Any, path: list[str]) -> list[str]:
    """The keys that the section at `path` may have, found by walking the models."""
    for step in path:
        section = _section(annotation)
        if section is not None:
            field = section.model_fields.get(step)
            annotation = field.annotation if field else None
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        # Else the step is one of pydantic's names for a choice: the annotation stays.
    section = _section(annotation)
    return sorted(section.model_fields) if section else []


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation allows, itself or as one of a choice; not one inside a mapping."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (dict, list):
        return None
    return next((found for inner in get_args(annotation) if (found := _section(inner)) is not None), None)
