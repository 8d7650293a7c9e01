"""The signal groups that come with Gristmill, and what a recipe's sections say to them.

invisible   stored soft hyphens and zero-width characters: the edits of the view raw
language    raw    fastText's best label and its probability
urls        stored the host against a block list
gopher      raw    Gopher's quality and repetition counts, one compiled pass
c4_lines    raw    C4's rewriting: the edits of the view c4, and what is counted on the way
c4          c4     C4's counts                   } one compiled pass
fineweb     c4     FineWeb's counts              }
edits       c4     masked addresses; all edits of a text as one list
final       final  hash and size of the text that is trained on
signature   final  MinHash
"""

import functools
from collections.abc import Callable
from typing import Any

from pipeline.measure import c4, c4_lines, final_text, fineweb, gopher, invisible, language, pii, repetition, urls
from pipeline.measure.c4_counts import count_c4
from pipeline.measure.counts import CountSignal, counted
from pipeline.measure.minhash import sign
from pipeline.measure.raw_counts import count_raw
from pipeline.measure.signal_group import Rule, SignalGroup, View
from pipeline.numba_kernels import kernel_digest
from schemas.recipe import Minhash, Recipe

__all__ = ["PUBLISHED_RULES", "built_in_groups", "built_in_options"]

PUBLISHED_RULES: dict[str, Rule] = {
    rule.name: rule for module in (language, urls, gopher, repetition, c4, fineweb) for rule in module.RULES
}


@functools.cache
def built_in_groups() -> tuple[SignalGroup, ...]:
    """Every group that comes with Gristmill, each before those that build on it."""
    return (
        SignalGroup(
            name="invisible",
            version=_version("pipeline.measure.invisible"),
            signals={},
            setup=invisible.setup,
            view="stored",
            columns=invisible.COLUMNS,
            options={"delete": True},
        ),
        SignalGroup(
            name="language",
            version=_version("pipeline.measure.language"),
            signals=language.SIGNALS,
            setup=language.setup,
            columns=language.COLUMNS,
            options={"model": "builtin:lid.176.ftz"},
            assets=("model",),
        ),
        SignalGroup(
            name="urls",
            version=_version("pipeline.measure.urls"),
            signals=urls.SIGNALS,
            setup=urls.setup,
            view="stored",
            reads=("url",),
            options={"block_list": None},
            assets=("block_list",),
        ),
        _counted("gopher", "raw", count_raw, (*gopher.SIGNALS, *repetition.SIGNALS)),
        SignalGroup(
            name="c4_lines",
            version=_version("pipeline.measure.c4_lines"),
            signals=c4_lines.SIGNALS,
            setup=c4_lines.setup,
            reads=("raw_edits",),
            columns=c4_lines.COLUMNS,
            options={"lines": None},
        ),
        _counted("c4", "c4", count_c4, c4.SIGNALS),
        _counted("fineweb", "c4", count_c4, fineweb.SIGNALS),
        SignalGroup(
            name="edits",
            version=_version("pipeline.measure.pii"),
            signals={},
            setup=pii.setup,
            view="c4",
            reads=("c4_edits",),
            columns=pii.COLUMNS,
            options={"mask": []},
        ),
        SignalGroup(
            name="final",
            version=_version("pipeline.measure.final_text"),
            signals={},
            measure=final_text.measure,
            view="final",
            columns=final_text.COLUMNS,
        ),
        SignalGroup(
            name="signature",
            version=_version("pipeline.measure.minhash.sign"),
            signals={},
            setup=sign.setup,
            view="final",
            columns=sign.signature_type,
            options=Minhash().model_dump(),
        ),
    )


def built_in_options(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What a recipe's sections say to each group."""
    measure, edits = recipe.measure, recipe.edits
    return {
        "language": {"model": measure.language_model},
        "urls": {"block_list": measure.url_block_list},
        "invisible": {"delete": edits.invisible},
        "c4_lines": {"lines": edits.c4.model_dump() if edits.c4 else None},
        "edits": {"mask": sorted(edits.mask)},
        "signature": measure.minhash.model_dump(),
    }


def _version(module: str) -> str:
    """The digest of a module and of all it imports: nobody has to raise a number."""
    return kernel_digest([module])


def _counted(name: str, view: View, count: Callable[..., Any], signals: tuple[CountSignal, ...]) -> SignalGroup:
    """A group of signals that are functions of the counts of one compiled pass."""
    meanings = {signal.name: signal.meaning for signal in signals}
    return SignalGroup(name, _version(count.__module__), meanings, measure=counted(count, signals), view=view)
