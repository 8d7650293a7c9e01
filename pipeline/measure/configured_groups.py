"""Signal groups as a recipe has them: with options and assets, in the order of measuring, and what each is known by."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.measure.assets import asset_sha256
from pipeline.measure.signal_group import SignalGroup
from pipeline.measure.user_modules import UserGroups
from schemas.arrow import TEXT_PART
from schemas.config_model import check_known, file_of
from schemas.recipe import canonical_json

__all__ = ["VIEW_COLUMNS", "ConfiguredGroup", "check_options", "columns_key", "configure", "recipe_key"]

# Where a recipe names the files of the groups that come with Gristmill.
RECIPE_KEYS = {("language", "model"): "measure.language_model", ("urls", "block_list"): "measure.url_block_list"}
VIEW_COLUMNS = {"raw": "raw_edits", "c4": "c4_edits", "final": "edits"}  # the edits that make a view of the stored text


def columns_key(part_sha256: str, identity: str) -> str:
    """What the columns of a group of this identity over a text part are known by (hex)."""
    return hashlib.sha256(f"{part_sha256} {identity}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ConfiguredGroup:
    """A group with the options that a recipe gives it."""

    group: SignalGroup
    options: Mapping[str, Any]
    builds_on: tuple[str, ...]  # the groups whose columns it reads, its view's edits included
    module: str  # of the user's own; empty: it comes with Gristmill
    identity: str  # hex: name, version, source, options, assets and the groups that it builds on

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def failed(self) -> str | None:
        """The column that says why a text could not be measured; None for a group that comes with Gristmill."""
        return f"{self.name}.failed" if self.module else None

    @functools.cached_property
    def types(self) -> dict[str, pa.DataType]:
        """Every column that its function gives, with its type."""
        return self.group.types(self.options)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Every column that is written of it, with its type."""
        return self.types | ({self.failed: pa.string()} if self.failed else {})

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that measuring it takes: those that it reads, and the edits that make its view."""
        return needed_columns(self.group)

    def key(self, part_sha256: str) -> str:
        """What the columns over a text part are known by (hex)."""
        return columns_key(part_sha256, self.identity)


def needed_columns(group: SignalGroup) -> tuple[str, ...]:
    """Columns that measuring a group takes: those that it reads, and the edits that make its view."""
    view = VIEW_COLUMNS.get(group.view)
    return (*group.reads, *([view] if view else []))


def recipe_key(group: str, option: str) -> str:
    """The recipe's key of a group's option."""
    own = f"{group}.{option}" if group.startswith("scores.") else f"measure.groups.{group}.{option}"
    return RECIPE_KEYS.get((group, option), own)


def check_options(given: Mapping[str, Mapping[str, Any]], groups: Sequence[SignalGroup]) -> None:
    """Raise ValueError for options of a group that is not the user's, or that it does not have."""
    known = {group.name: group for group in groups}
    for name, options in given.items():
        check_known("measure.groups", "signal group of your own", name, known)
        for option in options:
            check_known(f"measure.groups.{name}", "option", option, known[name].options)


def configure(
    groups: Sequence[SignalGroup], options: Mapping[str, Mapping[str, Any]], modules: Mapping[str, UserGroups]
) -> list[ConfiguredGroup]:
    """Each group with its options, behind those that it builds on; `modules` by the names of the user's groups.

    Raises ValueError for a name that is taken, a column that nobody makes, and groups that read each other.
    """
    chosen = {group.name: {**group.options, **options.get(group.name, {})} for group in groups}
    makers = _makers(groups, chosen, modules)
    configured: dict[str, ConfiguredGroup] = {}

    def add(group: SignalGroup, waiting: tuple[str, ...]) -> None:
        if group.name in configured:
            return
        if group.name in waiting:
            raise ValueError(f"signal groups {', '.join(waiting)} read each other in a circle: one must not")
        builds_on: dict[str, str] = {}  # name: identity
        for column in needed_columns(group):
            if column not in TEXT_PART.names:
                check_known(f"signal group {group.name} reads", "column", column, [*makers, *TEXT_PART.names])
                add(makers[column], (*waiting, group.name))
                builds_on[makers[column].name] = configured[makers[column].name].identity
        configured[group.name] = _configured(group, chosen[group.name], builds_on, modules.get(group.name))

    for group in groups:
        add(group, ())
    return list(configured.values())


def _makers(
    groups: Sequence[SignalGroup], chosen: Mapping[str, Mapping[str, Any]], modules: Mapping[str, UserGroups]
) -> dict[str, SignalGroup]:
    """The group of each column. Raises ValueError for a name that is given twice."""
    makers: dict[str, SignalGroup] = {}
    for group in groups:
        place = f"modules: {modules[group.name].module}: group {group.name}" if group.name in modules else group.name
        if not group.name or "/" in group.name:
            raise ValueError(f"{place}: a group needs a name without /")
        for column in (f"group {group.name}", *group.types(chosen[group.name])):
            if column in makers or column in TEXT_PART.names:
                other = makers[column].name if column in makers else "the record"
                raise ValueError(f"{place}: {column} is a name of {other} already: choose another")
            makers[column] = group
    return makers


def _configured(
    group: SignalGroup, options: Mapping[str, Any], builds_on: Mapping[str, str], user: UserGroups | None
) -> ConfiguredGroup:
    identity = {
        "name": group.name,
        "version": group.version,
        "module": user.sha256 if user else None,
        "options": {name: value for name, value in options.items() if name not in group.assets},
        "assets": {name: _asset_digest(group.name, name, options[name]) for name in group.assets},
        "builds_on": [*builds_on.values()],
    }
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()
    module = f"{user.module} {user.sha256}" if user else ""
    return ConfiguredGroup(group, options, tuple(builds_on), module, digest)


def _asset_digest(group: str, option: str, uri: str | None) -> str | None:
    if uri is None:
        return None
    with file_of(recipe_key(group, option)):
        return asset_sha256(uri)
