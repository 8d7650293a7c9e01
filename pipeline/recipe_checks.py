"""What a recipe names that only its files can tell: the labels of its language model."""

import difflib
from collections.abc import Sequence

from pipeline.measure.assets import asset_path
from pipeline.measure.fasttext.model_file import LABEL, read_model
from pipeline.report.labels import language_labels
from schemas.recipe import Recipe, RecipeError

__all__ = ["check_labels"]


def check_labels(recipe: Recipe) -> None:
    """Raise RecipeError, with the nearest label, where a list of languages names one that the model never gives."""
    for rule, bound in recipe.rules.items():
        if isinstance(bound, list):
            _check(rule, bound, _model_labels(recipe.measure.language_model))


def _check(rule: str, labels: Sequence[str], known: Sequence[str]) -> None:
    for label in labels:
        if label not in known:
            near = _nearest(label, known)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}"
            raise RecipeError(f"rules.{rule}: the language model has no label {label!r}; {hint}")


def _nearest(label: str, known: Sequence[str]) -> str | None:
    """The label of a language by its English name, else one that begins the same (deu, deutsch), else the nearest."""
    by_name = language_labels().get(label.lower())
    beginnings = [each for each in known if label.lower().startswith(each)]
    found = [by_name] if by_name in known else beginnings or difflib.get_close_matches(label, known, n=1)
    return max(found, key=lambda each: len(str(each)), default=None)


def _model_labels(uri: str) -> list[str]:
    return [label[len(LABEL) :].decode("utf-8", "replace") for label in read_model(asset_path(uri)).labels]
