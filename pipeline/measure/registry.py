"""The registry of a recipe: which groups are measured, which signals and rules there are, what the rules come to."""

import difflib
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.measure.assets import BUILTIN, asset_path, asset_sha256
from pipeline.measure.built_in import PUBLISHED_RULES, built_in_groups, built_in_options
from pipeline.measure.scores import score_groups
from pipeline.measure.signal_group import Comparison, Rule, SignalGroup
from pipeline.measure.user_modules import UserGroups, load_entry_points, load_module
from schemas.arrow import TEXT_PART
from schemas.config_model import file_of
from schemas.generation import DecidedRule, MeasuredGroup
from schemas.recipe import Bound, Recipe, canonical_json
from schemas.recipe import Rule as OwnRule

__all__ = [
    "VIEW_COLUMNS",
    "ConfiguredGroup",
    "Registry",
    "ResolvedRule",
    "asset_digests",
    "check_assets",
    "columns_key",
    "load_registry",
]

KEPT_REGISTRIES = 16
LABELS = "language"  # the column of labels, which "not in" asks
# Where a recipe names the files of the groups that come with Gristmill.
RECIPE_KEYS = {("language", "model"): "measure.language_model", ("urls", "block_list"): "measure.url_block_list"}
VIEW_COLUMNS = {"raw": "raw_edits", "c4": "c4_edits", "final": "edits"}  # the edits that make a view of the stored text


def columns_key(part_sha256: str, identity: str) -> str:
    """What the columns of a group of this identity over a text part are known by (hex)."""
    return hashlib.sha256(f"{part_sha256} {identity}".encode()).hexdigest()


@dataclass(frozen=True)
class ResolvedRule:
    """A rule as a recipe has it: dropped when the signal lies below, above or outside the threshold."""

    name: str
    signal: str  # a signal's name, or the column `language`
    comparison: Comparison
    threshold: float | tuple[str, ...]

    @staticmethod
    def of(decided: DecidedRule) -> "ResolvedRule":
        """A rule as a manifest has it."""
        threshold = tuple(decided.threshold) if isinstance(decided.threshold, list) else decided.threshold
        return ResolvedRule(decided.name, decided.signal, decided.comparison, threshold)

    def decided(self) -> DecidedRule:
        """The rule as a manifest has it."""
        threshold = list(self.threshold) if isinstance(self.threshold, tuple) else self.threshold
        return DecidedRule(name=self.name, signal=self.signal, comparison=self.comparison, threshold=threshold)


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
        view = VIEW_COLUMNS.get(self.group.view)
        return (*self.group.reads, *([view] if view else []))

    def key(self, part_sha256: str) -> str:
        """What the columns over a text part are known by (hex)."""
        return columns_key(part_sha256, self.identity)


@dataclass(frozen=True, eq=False)
class Registry:
    """The groups in the order of measuring, and the rules by name."""

    groups: tuple[ConfiguredGroup, ...]
    rules: Mapping[str, Rule]

    @functools.cached_property
    def signals(self) -> dict[str, ConfiguredGroup]:
        """Every signal by name, with its group."""
        return {name: group for group in self.groups for name in group.group.signals}

    def identities(self) -> dict[str, str]:
        """For the manifest: what decides the columns of each group, as measure.NAME."""
        return {f"measure.{group.name}": group.identity for group in self.groups}

    def measures(self) -> dict[str, MeasuredGroup]:
        """For the manifest: each group with its version and what its signals mean."""
        return {
            group.name: MeasuredGroup(
                version=group.group.version,
                module=group.module,
                signals=dict(group.group.signals),
                failed=group.failed,
            )
            for group in self.groups
        }

    def resolve_rules(self, rules: Mapping[str, Bound]) -> list[ResolvedRule]:
        """The rules that a recipe's `rules:` turns on, in its order.

        A number is the threshold of a published rule, a list the labels of a "not in" rule, null turns a rule off, and
        `{signal, min, max}` is a rule of the user's own. Raises ValueError with the nearest name for an unknown one.
        """
        return [resolved for name, bound in rules.items() for resolved in self._resolve(name, bound)]

    def _resolve(self, name: str, bound: Bound) -> list[ResolvedRule]:
        if isinstance(bound, OwnRule):
            return self._own_rule(name, bound)
        _known("rules", "rule", name, self.rules)
        rule = self.rules[name]
        if bound is None:
            return []
        if isinstance(bound, (int, float)):
            if rule.comparison == "not in":
                raise ValueError(f"rules: {name}: {bound:g} is no list: give the labels to keep, as [en, de]")
            return [ResolvedRule(name, rule.signal, rule.comparison, float(bound))]
        labels = tuple(bound)
        if rule.comparison != "not in":
            raise ValueError(f"rules: {name}: a list, where one number is expected; published is {rule.threshold:g}")
        if not labels:
            raise ValueError(
                f"rules: {name}: the list is empty, which drops everything: name a label, or write null to turn it off"
            )
        return [ResolvedRule(name, rule.signal, rule.comparison, labels)]

    def _own_rule(self, name: str, own: OwnRule) -> list[ResolvedRule]:
        if name in self.rules:
            raise ValueError(
                f"rules: {name} is a published rule of {self.rules[name].signal}: give it a number, or choose another "
                "name"
            )
        _known(f"rules.{name}", "signal", own.signal, self.signals)
        bounds: list[tuple[Comparison, float | None]] = [("<", own.min), (">", own.max)]
        return [ResolvedRule(name, own.signal, comparison, bound) for comparison, bound in bounds if bound is not None]


_LOADED: dict[str, Registry] = {}  # by recipe and the files it names: a process asks again for every task


def load_registry(recipe: Recipe, offered: bool = False) -> Registry:
    """The registry that a recipe asks for; with `offered` all that installed packages offer, named or not.

    Raises ValueError for a module, a group or an option that is wrong, and for an asset that cannot be read.
    """
    key = f"{offered}\n{recipe.model_dump_json()}\n{_stamp(recipe)}"
    if key not in _LOADED:
        _LOADED[key] = _load(recipe, offered)
        if len(_LOADED) > KEPT_REGISTRIES:
            del _LOADED[next(iter(_LOADED))]
    return _LOADED[key]


def check_assets(recipe: Recipe) -> None:
    """Raise ConfigError, with the recipe's key, for a file that is missing or not what it should be.

    Groups that name files are set up as a worker does, so that no run finds it out after hours; a model that is shipped
    is not read. Raises StorageError where a store fails.
    """
    for group in load_registry(recipe).groups:
        for option in group.group.assets:
            uri = group.options[option]
            if uri is not None and not uri.startswith(BUILTIN) and group.group.setup:
                with file_of(RECIPE_KEYS.get((group.name, option)) or _own_key(group.name, option)):
                    group.group.setup(group.options)


def asset_digests(recipe: Recipe) -> dict[str, str]:
    """sha256 of each file that the recipe's measures need, by the recipe's key without its section."""
    digests = {}
    for group in load_registry(recipe).groups:
        for option in group.group.assets:
            if group.options[option] is not None:
                key = RECIPE_KEYS.get((group.name, option)) or _own_key(group.name, option)
                digests[key.removeprefix("measure.")] = asset_sha256(group.options[option])
    return digests


def _own_key(group: str, option: str) -> str:
    return f"{group}.{option}" if group.startswith("scores.") else f"measure.groups.{group}.{option}"


def _stamp(recipe: Recipe) -> str:
    """Changes with the files that the recipe names, as far as a glance can tell, so that a cached registry is fresh."""
    named = [recipe.measure.language_model, recipe.measure.url_block_list]
    named += [scores.file for scores in recipe.scores.values()]
    named += [value for options in recipe.measure.groups.values() for value in options.values()]
    stamps = []
    for name in named:
        if isinstance(name, str):
            try:
                found = asset_path(name).stat()
            except (OSError, ValueError):
                continue
            stamps.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(stamps)


def _load(recipe: Recipe, offered: bool) -> Registry:
    user = [load_module(module.name, module.source) for module in recipe.modules]
    user += load_entry_points() if offered else _offered(recipe, user)
    modules = {group.name: each for each in user for group in each.groups}
    groups = [*built_in_groups(), *score_groups(recipe.scores), *(group for each in user for group in each.groups)]
    rules = dict(PUBLISHED_RULES)
    for each in user:
        for rule in each.rules:
            if rule.name in rules:
                raise ValueError(f"modules: {each.module}: there is a rule {rule.name} already: choose another name")
            rules[rule.name] = rule
    options = built_in_options(recipe) | {
        f"scores.{name}": {"file": scores.file} | scores.model_dump(exclude={"file"})
        for name, scores in recipe.scores.items()
    }
    _check_options(recipe.measure.groups, [group for each in user for group in each.groups])
    configured = _configure(groups, options | recipe.measure.groups, modules)
    registry = Registry(tuple(configured), rules)
    for each in user:
        for rule in each.rules:
            _known(f"modules: {each.module}: rule {rule.name}", "signal", rule.signal, [*registry.signals, LABELS])
    return registry


def _offered(recipe: Recipe, known: Sequence[UserGroups]) -> list[UserGroups]:
    """The entry points whose signals or rules the recipe names; looked for only when a name is unknown otherwise."""
    names = set(recipe.rules) | {bound.signal for bound in recipe.rules.values() if isinstance(bound, OwnRule)}
    names |= {wish.partition(":")[2] for wish in recipe.prefer if ":" in wish} | set(recipe.measure.groups)
    there = set(PUBLISHED_RULES) | {signal for group in built_in_groups() for signal in group.signals}
    there |= {f"scores.{name}" for name in recipe.scores} | {LABELS}
    for each in known:
        there |= _names(each)
    unknown = names - there
    own = {name for name, bound in recipe.rules.items() if isinstance(bound, OwnRule)}
    if not unknown - own:
        return []
    return [each for each in load_entry_points() if unknown & _names(each)]


def _names(user: UserGroups) -> set[str]:
    """What a recipe may call of a module: rules, signals and groups."""
    return {
        *(rule.name for rule in user.rules),
        *(name for group in user.groups for name in (group.name, *group.signals)),
    }


def _check_options(given: Mapping[str, Mapping[str, Any]], groups: Sequence[SignalGroup]) -> None:
    known = {group.name: group for group in groups}
    for name, options in given.items():
        _known("measure.groups", "signal group of your own", name, known)
        for option in options:
            _known(f"measure.groups.{name}", "option", option, known[name].options)


def _configure(
    groups: Sequence[SignalGroup], options: Mapping[str, Mapping[str, Any]], modules: Mapping[str, UserGroups]
) -> list[ConfiguredGroup]:
    """Each group with its options, behind those that it builds on."""
    makers: dict[str, SignalGroup] = {}
    for group in groups:
        place = f"modules: {modules[group.name].module}: group {group.name}" if group.name in modules else group.name
        if not group.name or "/" in group.name:
            raise ValueError(f"{place}: a group needs a name without /")
        for column in (f"group {group.name}", *group.types(dict(group.options) | dict(options.get(group.name, {})))):
            if column in makers or column in TEXT_PART.names:
                other = makers[column].name if column in makers else "the record"
                raise ValueError(f"{place}: {column} is a name of {other} already: choose another")
            makers[column] = group
    configured: dict[str, ConfiguredGroup] = {}

    def add(group: SignalGroup, waiting: tuple[str, ...]) -> None:
        if group.name in configured:
            return
        if group.name in waiting:
            raise ValueError(f"signal groups {', '.join(waiting)} read each other in a circle: one must not")
        view = VIEW_COLUMNS.get(group.view)
        needed = [*group.reads, *([view] if view else [])]
        builds_on: list[str] = []
        for column in needed:
            if column in TEXT_PART.names:
                continue
            _known(f"signal group {group.name} reads", "column", column, [*makers, *TEXT_PART.names])
            add(makers[column], (*waiting, group.name))
            if makers[column].name not in builds_on:
                builds_on.append(makers[column].name)
        chosen = dict(group.options) | dict(options.get(group.name, {}))
        user = modules.get(group.name)
        identity = {
            "name": group.name,
            "version": group.version,
            "module": user.sha256 if user else None,
            "options": {name: value for name, value in chosen.items() if name not in group.assets},
            "assets": {name: _asset_digest(group.name, name, chosen[name]) for name in group.assets},
            "builds_on": [configured[name].identity for name in builds_on],
        }
        digest = hashlib.sha256(canonical_json(identity)).hexdigest()
        module = f"{user.module} {user.sha256}" if user else ""
        configured[group.name] = ConfiguredGroup(group, chosen, tuple(builds_on), module, digest)

    for group in groups:
        add(group, ())
    return list(configured.values())


def _asset_digest(group: str, option: str, uri: str | None) -> str | None:
    if uri is None:
        return None
    with file_of(RECIPE_KEYS.get((group, option)) or _own_key(group, option)):
        return asset_sha256(uri)


def _known(place: str, kind: str, name: str, names: Iterable[str]) -> None:
    known = list(names)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"{place}: there is no {kind} {name}; {hint}")
