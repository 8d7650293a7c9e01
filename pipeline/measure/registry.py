"""The registry of a recipe: which groups are measured, which signals and rules there are, what the rules come to."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.measure.assets import BUILTIN, asset_path, asset_sha256
from pipeline.measure.built_in import PUBLISHED_RULES, built_in_groups, built_in_options
from pipeline.measure.configured_groups import ConfiguredGroup, check_options, configure, recipe_key
from pipeline.measure.resolved_rules import ResolvedRule, resolve_rules
from pipeline.measure.scores import score_groups
from pipeline.measure.signal_group import Rule
from pipeline.measure.user_modules import UserGroups, load_entry_points, load_module
from schemas.config_model import check_known, file_of
from schemas.generation import MeasuredGroup
from schemas.recipe import Bound, Recipe
from schemas.recipe import Rule as OwnRule

__all__ = [
    "Registry",
    "asset_digests",
    "check_assets",
    "load_registry",
]

KEPT_REGISTRIES = 16
LABELS = "language"  # the column of labels, which "not in" asks


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
        """The rules that a recipe's `rules:` turns on, in its order. Raises ValueError for what it cannot mean."""
        return resolve_rules(rules, self.rules, self.signals)


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
                with file_of(recipe_key(group.name, option)):
                    group.group.setup(group.options)


def asset_digests(recipe: Recipe) -> dict[str, str]:
    """sha256 of each file that the recipe's measures need, by the recipe's key without its section."""
    digests = {}
    for group in load_registry(recipe).groups:
        for option in group.group.assets:
            if group.options[option] is not None:
                key = recipe_key(group.name, option)
                digests[key.removeprefix("measure.")] = asset_sha256(group.options[option])
    return digests


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
    check_options(recipe.measure.groups, [group for each in user for group in each.groups])
    configured = configure(groups, options | recipe.measure.groups, modules)
    registry = Registry(tuple(configured), rules)
    for each in user:
        for rule in each.rules:
            check_known(f"modules: {each.module}: rule {rule.name}", "signal", rule.signal, [*registry.signals, LABELS])
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
