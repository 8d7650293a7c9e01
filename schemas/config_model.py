"""Closed configuration models: YAML in, a validated model out, faults named by place and nearest known name.

The recipe of a dataset and the configuration of a training are both read here.
"""

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from schemas.object_stores import StorageError

__all__ = ["ConfigError", "Section", "check_known", "file_of", "load_model", "nearest", "read_mapping", "shown"]

M = TypeVar("M", bound=BaseModel)

SHOWN = 60  # characters of a value that is quoted in a message

# What is expected instead of a wrong value, by pydantic's name of the fault; in braces stands what the model says.
EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of names",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list, as in [a, b]",
    "literal_error": "{expected}",
    "model_type": "a section with keys of its own",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "a longer text",
    "string_type": "text (in quotes, if it looks like something else)",
    "too_short": "at least {min_length} of them",
}


class ConfigError(ValueError):
    """A configuration cannot be used: its message says where and why (exit code 2)."""


class Section(BaseModel):
    """A part of a configuration: immutable, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, data: Any) -> Any:
        """Refuse true and false where no boolean is expected: to Python they are the numbers 1 and 0."""
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            kind = field.annotation if isinstance(value, bool) and field is not None else bool
            if not _allows(kind, bool) and (_allows(kind, int) or _allows(kind, float)):
                raise ValueError(f"{name}={json.dumps(value)}: expected a number")
        return data


@contextlib.contextmanager
def file_of(key: str) -> Iterator[None]:
    """Say with `key` what is wrong with a file that a configuration names there: ConfigError, or StorageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{key}: {error.filename}: {error.strerror}") from None
    except StorageError as error:
        raise StorageError(f"{key}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


def load_model(
    path: str,
    model: type[M],
    overrides: Iterable[str] = (),
    named: str | None = None,
    unions: tuple[str, ...] = (),
    extend: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> M:
    """The model in the YAML file `path`, changed by `key.path=value` overrides.

    `named` is a section whose keys have dots of their own; `unions` are names that pydantic puts into the place of
    a fault and no user wrote; `extend` puts what the file builds on below it. Raises ConfigError with the place and the
    nearest known name.
    """
    data = read_mapping(path)
    if extend:
        data = extend(data)
    for override in overrides:
        _override(data, override, named)
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        faults = [f"{path}: {_explain(model, fault, named, unions)}" for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from None


def read_mapping(path: str) -> dict[str, Any]:
    """The sections of a YAML file. Raises ConfigError for what is not a mapping, and for a key given twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: cannot read it: {why}") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply to be a configuration") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected, this is {type(data).__name__}")
    return data


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2, which refuses a key given twice, where plain YAML silently keeps the last.

    By version 1.1, PyYAML's, `no` is false, `1:30` is 90, `010` is 8 and `1e3` is text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue  # `<<: *anchor`: keys of the mapping itself go before those of the anchor
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


MERGE = "tag:yaml.org,2002:merge"
SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in SCALARS.items():
    _starts = [character if character != "\0" else "" for character in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _allows(annotation: Any, kind: type) -> bool:
    """Return whether a value of this type may stand for the annotation itself, or as one of its choices."""
    if annotation is Any or annotation is kind:
        return True
    if get_origin(annotation) in (dict, list):
        return False
    return any(inner is kind or _allows(inner, kind) for inner in get_args(annotation))


def _override(data: dict[str, Any], override: str, named: str | None) -> None:
    """Set one `key.path=value` in place; the value is YAML."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"{override}: write key.path=value, as in seed=7")
    try:
        parsed = yaml.load(value, Loader=_Loader)
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
    key = ".".join(place)
    if fault["type"] == "missing":
        return f"{key}: is missing"
    if fault["type"] == "value_error":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    expected = EXPECTED.get(fault["type"])
    wish = f"expected {expected.format(**fault.get('ctx', {}))}" if expected else fault["msg"]
    return f"{key}={shown(fault['input'])}: {wish}"


def check_known(place: str, kind: str, name: str, names: Iterable[str]) -> None:
    """Raise ValueError, with the nearest of the known names, for one that is not among them."""
    known = list(names)
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}"
        raise ValueError(f"{place}: there is no {kind} {name}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`; None where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def shown(value: Any) -> str:
    """A value of a configuration as YAML has it, on one line and not too long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


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
