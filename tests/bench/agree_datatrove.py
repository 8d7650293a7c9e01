"""How often each rule gives datatrove's verdict, and whether C4's rewriting gives its text.

    python -m tests.bench.agree_datatrove TEXTS.jsonl... --peer /path/to/python/with/datatrove

TEXTS.jsonl has a field `text` a line. Every rule of their filters is asked by itself, with the others off. The peer
needs datatrove 0.10.1 with spaCy. FineWeb's rules are asked on the text as it is and on what C4 has left of it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PEER = """
import json, sys
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
quality = dict.fromkeys("min_doc_words max_doc_words min_avg_word_length max_avg_word_length max_symbol_word_ratio "
    "max_bullet_lines_ratio max_ellipsis_lines_ratio max_non_alpha_words_ratio min_stop_words".split())
repetition = dict(dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None,
    top_n_grams=(), dup_n_grams=())
c4 = dict(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=-1)
fineweb = dict(line_punct_thr=-1, short_line_thr=9, char_duplicates_ratio=9, new_line_ratio=9e9)
def one(kind, off, **on):
    return kind(**{**off, **on})
raw = {
    "gopher.too_few_words": one(GopherQualityFilter, quality, min_doc_words=50),
    "gopher.too_many_words": one(GopherQualityFilter, quality, max_doc_words=100000),
    "gopher.words_too_short": one(GopherQualityFilter, quality, min_avg_word_length=3),
    "gopher.words_too_long": one(GopherQualityFilter, quality, max_avg_word_length=10),
    "gopher.too_many_bullets": one(GopherQualityFilter, quality, max_bullet_lines_ratio=0.9),
    "gopher.too_many_end_ellipses": one(GopherQualityFilter, quality, max_ellipsis_lines_ratio=0.3),
    "gopher.too_few_alphabetic_words": one(GopherQualityFilter, quality, max_non_alpha_words_ratio=0.8),
    "gopher.too_few_stop_words": one(GopherQualityFilter, quality, min_stop_words=2),
    "gopher.too_many_hashes or ellipses": one(GopherQualityFilter, quality, max_symbol_word_ratio=0.1),
    "gopher.too_many_duplicate_lines": one(GopherRepetitionFilter, repetition, dup_line_frac=0.3),
    "gopher.too_many_duplicate_paragraphs": one(GopherRepetitionFilter, repetition, dup_para_frac=0.3),
    "gopher.too_many_duplicate_line_characters": one(GopherRepetitionFilter, repetition, dup_line_char_frac=0.2),
    "gopher.too_many_duplicate_paragraph_characters": one(GopherRepetitionFilter, repetition, dup_para_char_frac=0.2),
}
for n, t in ((2, 0.2), (3, 0.18), (4, 0.16)):
    raw[f"gopher.too_many_top_{n}_grams"] = one(GopherRepetitionFilter, repetition, top_n_grams=((n, t),))
for n, t in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)):
    raw[f"gopher.too_many_duplicate_{n}_grams"] = one(GopherRepetitionFilter, repetition, dup_n_grams=((n, t),))
lines = {}
for name, end in (("c4", True), ("c4, no end marks", False)):
    base = {**c4, "filter_no_terminal_punct": end}
    lines[name] = one(C4QualityFilter, base)
    raw[f"{name}: c4.too_few_sentences"] = one(C4QualityFilter, base, min_num_sentences=5)
    raw[f"{name}: c4.curly_bracket"] = one(C4QualityFilter, base, filter_curly_bracket=True)
    raw[f"{name}: c4.lorem_ipsum"] = one(C4QualityFilter, base, filter_lorem_ipsum=True)
own = {
    "fineweb.too_few_end_marks": one(FineWebQualityFilter, fineweb, line_punct_thr=0.12),
    "fineweb.too_many_short_lines": one(FineWebQualityFilter, fineweb, short_line_thr=0.67),
    "fineweb.too_many_repeated_characters": one(FineWebQualityFilter, fineweb, char_duplicates_ratio=0.01),
    "fineweb.too_many_newlines": one(FineWebQualityFilter, fineweb, new_line_ratio=0.3),
}
def drops(rule, text):
    try:
        return rule.filter(Document(text=text, id="")) is not True
    except ZeroDivisionError:
        return True
for line in open(sys.argv[1], encoding="utf-8"):
    text, left = json.loads(line)["text"], {}
    for name, step in lines.items():
        document = Document(text=text, id="")
        step.filter(document)
        left[name] = document.text
    found = {name: drops(rule, text) for name, rule in {**raw, **own}.items()}
    # Of an empty text their filter says "empty" whatever the rule, so only the first of them is asked.
    asked = own if left["c4, no end marks"] else dict(list(own.items())[:1])
    found |= {f"c4, no end marks: {name}": drops(rule, left["c4, no end marks"]) for name, rule in asked.items()}
    print(json.dumps({"drops": found, "texts": left}))
"""


def ours(texts: list[str]) -> tuple[dict[str, list[bool]], dict[str, list[str]]]:
    """Verdicts by the names that the peer uses, and the texts that C4 has left."""
    import pyarrow as pa

    from pipeline.measure.measure import Measurer
    from pipeline.measure.registry import load_registry
    from pipeline.text.edits import apply_edits
    from schemas.recipe import Recipe

    column = pa.array(texts, pa.large_string())
    verdicts: dict[str, Any] = {}
    left = {}
    urls = {"url": pa.nulls(len(texts), pa.string())}
    for view, lines in (("", None), ("c4", {}), ("c4, no end marks", {"end_mark": False})):
        recipe = Recipe.model_validate({"sources": {"web": {"root": "."}}, "edits": {"c4": lines, "invisible": False}})
        registry = load_registry(recipe)
        batch = Measurer(registry).measure(column, urls)
        if view:
            left[view] = apply_edits(column, batch["edits"]).to_pylist()
        for rule in registry.rules.values():
            if rule.comparison != "not in":
                values = batch[rule.signal].to_numpy()
                dropped = values < rule.threshold if rule.comparison == "<" else values > rule.threshold
                verdicts[f"{view}: {rule.name}" if view else rule.name] = dropped
    either = verdicts["gopher.too_many_hashes"] | verdicts["gopher.too_many_ellipses"]
    verdicts["gopher.too_many_hashes or ellipses"] = either
    return verdicts, left


def compare(path: Path, peer: str) -> None:
    texts = [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    result = subprocess.run([peer, "-c", PEER, str(path)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{peer}: {result.stderr.strip().splitlines()[-1]}")
    theirs = [json.loads(line) for line in result.stdout.splitlines()]
    verdicts, left = ours(texts)
    print(f"\n{path.name}: {len(texts)} documents\n{'':52s}{'theirs':>8s}{'ours':>8s}{'equal':>9s}")
    for name in left:
        equal = sum(row["texts"][name] == text for row, text in zip(theirs, left[name], strict=True))
        print(f"{name + ': text':52s}{'':16s}{equal / len(texts):9.2%}")
    for name in theirs[0]["drops"]:
        pairs = [
            (row["drops"][name], bool(mine))
            for row, mine in zip(theirs, verdicts[name], strict=True)
            if name in row["drops"]
        ]
        equal = sum(a == b for a, b in pairs)
        print(f"{name:52s}{sum(a for a, _ in pairs):8d}{sum(b for _, b in pairs):8d}{equal / len(pairs):9.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--peer", required=True, help="a Python with datatrove[processing] and spaCy")
    options = parser.parse_args()
    for path in options.texts:
        compare(path, options.peer)


if __name__ == "__main__":
    main()
