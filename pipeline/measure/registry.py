"""The registry: every signal that is measured, every rule that is published, and what a recipe makes of them."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.measure import c4, fineweb, gopher, language, repetition, urls
from pipeline.measure.counts import Comparison, Counts, Rule, Signal
from schemas import recipe

__all__ = [
    "RULES",
    "SIGNALS",
    "SIGNAL_NAMES",
    "Counts",
    "ResolvedRule",
    "Rule",
    "Signal",
    "resolve_rules",
    "signals_of",
]

MODULES = (language, urls, gopher, repetition, c4, fineweb)

# In the order of the columns of a part: append to a module's SIGNALS, or raise MEASURE_VERSION.
SIGNALS: tuple[Signal, ...] = tuple(signal for module in MODULES for signal in module.SIGNALS)
SIGNAL_NAMES: tuple[str, ...] = tuple(signal.name for signal in SIGNALS)
RULES: dict[str, Rule] = {rule.name: rule for module in MODULES for rule in module.RULES}

LABELS = "language"  # the column of labels, which "not in" asks


@dataclass(frozen=True)
class ResolvedRule:
    """A rule as a recipe has it: dropped when the signal lies below, above or outside the threshold."""

    name: str
    signal: str  # a signal's name, or the column `language`
    comparison: Comparison
    threshold: float | tuple[str, ...]


def signals_of(*names: str) -> tuple[Signal, ...]:
    """The signals of these names, in the registry's order; of none, all. Raises ValueError for an unknown one."""
    for name in names:
        _known("signals", "signal", name, SIGNAL_NAMES)
    return tuple(signal for signal in SIGNALS if not names or signal.name in names)


def resolve_rules(rules: Mapping[str, "float | Iterable[str] | recipe.Rule | None"]) -> list[ResolvedRule]:
    """The rules that a recipe's `rules:` turns on, in its order.

    A number is the threshold of a published rule, a list the labels of a "not in" rule, null turns a rule off, and
    `{signal, min, max}` is a rule of the user's own. Raises ValueError with the nearest name for an unknown one.
    """
    return [resolved for name, bound in rules.items() for resolved in _resolve(name, bound)]


def _resolve(name: str, bound: "float | Iterable[str] | recipe.Rule | None") -> list[ResolvedRule]:
    if isinstance(bound, recipe.Rule):
        return _own_rule(name, bound)
    _known("rules", "rule", name, RULES)
    rule = RULES[name]
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


def _own_rule(name: str, own: recipe.Rule) -> list[ResolvedRule]:
    if name in RULES:
        raise ValueError(
            f"rules: {name} is a published rule of {RULES[name].signal}: give it a number, or choose another name"
        )
    _known(f"rules.{name}", "signal", own.signal, SIGNAL_NAMES)
    bounds: list[tuple[Comparison, float | None]] = [("<", own.min), (">", own.max)]
    return [ResolvedRule(name, own.signal, comparison, bound) for comparison, bound in bounds if bound is not None]


def _known(place: str, kind: str, name: str, names: Iterable[str]) -> None:
    known = list(names)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"{place}: there is no {kind} {name}; {hint}")
