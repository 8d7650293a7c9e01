"""What a recipe's rules come to: a signal, a comparison and a threshold each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.measure.signal_group import Comparison, Rule
from schemas.config_model import check_known
from schemas.generation import DecidedRule
from schemas.recipe import Bound
from schemas.recipe import Rule as OwnRule

__all__ = ["ResolvedRule", "resolve_rules"]


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


def resolve_rules(
    rules: Mapping[str, Bound], published: Mapping[str, Rule], signals: Iterable[str]
) -> list[ResolvedRule]:
    """The rules that a recipe's `rules:` turns on, in its order; `published` are the known rules by name.

    A number is the threshold of a published rule, a list the labels of a "not in" rule, null turns a rule off, and
    `{signal, min, max}` is a rule of the user's own. Raises ValueError with the nearest name for an unknown one.
    """
    return [resolved for name, bound in rules.items() for resolved in _resolve(name, bound, published, signals)]


def _resolve(name: str, bound: Bound, published: Mapping[str, Rule], signals: Iterable[str]) -> list[ResolvedRule]:
    if isinstance(bound, OwnRule):
        return _own_rule(name, bound, published, signals)
    check_known("rules", "rule", name, published)
    rule = published[name]
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


def _own_rule(name: str, own: OwnRule, published: Mapping[str, Rule], signals: Iterable[str]) -> list[ResolvedRule]:
    if name in published:
        raise ValueError(
            f"rules: {name} is a published rule of {published[name].signal}: give it a number, or choose another name"
        )
    check_known(f"rules.{name}", "signal", own.signal, signals)
    bounds: list[tuple[Comparison, float | None]] = [("<", own.min), (">", own.max)]
    return [ResolvedRule(name, own.signal, comparison, bound) for comparison, bound in bounds if bound is not None]
