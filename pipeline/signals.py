"""`gristmill signals`: every signal that can be measured and every rule that can be named, with meaning and source."""

from typing import Any

from pipeline.measure.registry import Registry

__all__ = ["signal_lines", "signal_list"]


def signal_list(registry: Registry) -> dict[str, list[dict[str, Any]]]:
    """Signals and rules as `--json` prints them, in the order of the groups."""
    signals = [
        {
            "signal": name,
            "group": group.name,
            "view": group.group.view,
            "meaning": meaning,
            "from": group.module.partition(" ")[0] or "gristmill",
        }
        for group in registry.groups
        for name, meaning in group.group.signals.items()
    ]
    rules = [
        {
            "rule": rule.name,
            "signal": rule.signal,
            "drops": rule.comparison,
            "threshold": rule.threshold,
            "source": rule.source,
        }
        for rule in registry.rules.values()
    ]
    return {"signals": signals, "rules": rules}


def signal_lines(registry: Registry) -> list[str]:
    """Signals and rules as tables for a terminal."""
    listed = signal_list(registry)
    rows = [[each["signal"], each["view"], each["from"], each["meaning"]] for each in listed["signals"]]
    rules = [[each["rule"], _bound(each), each["source"]] for each in listed["rules"]]
    return [*_table(["signal", "view", "from", "meaning"], rows), "", *_table(["rule", "drops", "source"], rules)]


def _bound(rule: dict[str, Any]) -> str:
    if rule["drops"] == "not in":
        return f"{rule['signal']} not in the recipe's list"
    return f"{rule['signal']} {rule['drops']} {rule['threshold']:g}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Rows below a head; the last column may be of any width."""
    table = [head, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(head) - 1)] + [0]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
