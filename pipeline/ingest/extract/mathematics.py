"""Formulas as TeX: MathML, TeX in scripts and annotations, pictures of formulas."""

import re

from pipeline.ingest.extract.blocks import collapse
from pipeline.ingest.extract.tokens import attribute

__all__ = ["tex_of_image", "tex_of_math", "tex_of_script"]

_DELIMITED = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]", re.DOTALL)
_TEX_IMAGE = re.compile(r"\b(?:la)?tex\b|\bmath|mwe-math|codecogs|render/svg|[/.]latex", re.IGNORECASE)


def _delimited(tex: str, is_display: bool) -> str:
    tex = collapse(tex)
    if not tex or _DELIMITED.fullmatch(tex):
        return tex
    return f"$${tex}$$" if is_display else f"${tex}$"


def tex_of_math(attributes: str, annotation: str | None) -> str | None:
    """The TeX of a `<math>`, from its annotation or its `alttext`; None where it has neither."""
    tex = annotation or attribute(attributes, "alttext")
    return _delimited(tex, attribute(attributes, "display") == "block") if tex else None


def tex_of_script(attributes: str, content: str) -> str | None:
    """The TeX that a `<script type="math/tex">` holds; None for any other script."""
    kind = attribute(attributes, "type") or ""
    return _delimited(content, "mode=display" in kind) if kind.startswith("math/tex") else None


def tex_of_image(attributes: str) -> str | None:
    """The TeX that a picture of a formula has as its alternative text; None for any other picture."""
    names = " ".join(attribute(attributes, name) or "" for name in ("class", "src"))
    alternative = attribute(attributes, "alt")
    return _delimited(alternative, False) if alternative and _TEX_IMAGE.search(names) else None
