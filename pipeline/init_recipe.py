"""`gristmill init`: a recipe for a crawl of one's own, with the rules that hold in any language turned on."""

import json
import re
from collections import Counter
from pathlib import Path

from pipeline.ingest.bytes.compression import EXTENSIONS
from pipeline.ingest.sources import FORMATS, format_of, is_side_file
from schemas import storage
from schemas.recipe import RecipeError
from schemas.text_format import bits, plural

__all__ = ["init_recipe"]

MIB = 1 << 20
TASKS = 32  # that a small crawl is cut into, so that every core has some

TEMPLATE = """\
# A recipe for {root}: {what}. Written by `gristmill init`; change what you like.
#
#     gristmill plan {file}       what there is to read; runs nothing
#     gristmill run {file}        makes the dataset and its report
#     gristmill decide {file} --set rules.gopher.too_few_words=100     tries a threshold on what was read

name: {name}
output: {output}

sources:
  crawl:
    root: {root_yaml}
    inputs: {inputs}

read:
  part_bytes: {part_bytes}  # input of a part, about: small parts for a small crawl, up to 256 MiB for a large one

edits:
  # An address becomes a fixed one, email@example.com, in prose, in mailto: links and of mailing lists alike; write []
  # to keep addresses, and [email, ip] to mask those of machines too.
  mask: [email]

rules:
  # The languages to keep: every other is dropped. Without a list all are kept.
  # language.not_wanted: [en]
  language.low_score: 0.65
  gopher.too_few_words: 50
  gopher.too_many_words: 100_000
  gopher.words_too_long: 10
  gopher.too_many_hashes: 0.1
  gopher.too_many_ellipses: 0.1
  gopher.too_many_bullets: 0.9
  gopher.too_many_end_ellipses: 0.3
  # These three count English words and the words of scripts with spaces: for English alone.
  # gopher.words_too_short: 3
  # gopher.too_few_alphabetic_words: 0.8
  # gopher.too_few_stop_words: 2
  gopher.too_many_duplicate_lines: 0.3
  gopher.too_many_duplicate_paragraphs: 0.3
  gopher.too_many_duplicate_line_characters: 0.2
  gopher.too_many_duplicate_paragraph_characters: 0.2
  gopher.too_many_top_2_grams: 0.2
  gopher.too_many_top_3_grams: 0.18
  gopher.too_many_top_4_grams: 0.16
  gopher.too_many_duplicate_5_grams: 0.15
  gopher.too_many_duplicate_10_grams: 0.1

near:
  threshold: 0.75  # similarity at which two documents are duplicates

tokenizer:
  vocab_size: 32_000  # trained on what is kept; or `file: tokenizer.json` to use one that is there
"""


def init_recipe(crawl: str, to: str) -> str:
    """Write a recipe for the crawl files below a folder, prefix or file; return what to do next.

    Raises RecipeError where there is no crawl file, or where the recipe's file is there already.
    """
    if Path(to).exists():
        raise RecipeError(f"{to}: there already: give another file with --to, or remove it")
    root, files = _crawl_files(crawl)
    inputs, sizes = _inputs(root, files)
    if not inputs:
        endings = f"{', '.join(FORMATS)} (or {', '.join(EXTENSIONS)} after it)"
        raise RecipeError(f"{crawl}: {plural(len(files), 'file')}, none that ends in {endings}")
    total = sum(sizes)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(to).stem).strip("-._")[:64] or "dataset"
    text = TEMPLATE.format(
        root=_on_one_line(root),
        what=f"{plural(len(sizes), 'file')}, {bits(total)}".replace("\u202f", " "),
        file=to,
        name=name,
        output=json.dumps(f"{name}-dataset"),
        root_yaml=json.dumps(root, ensure_ascii=False),
        inputs=json.dumps(inputs, ensure_ascii=False),
        part_bytes=f"{_part_bytes(total):_}",
    )
    storage.write(to, text.encode())
    return f"{to}: {plural(len(sizes), 'file')}, {bits(total)}; next: gristmill plan {to}"


def _crawl_files(crawl: str) -> tuple[str, list[storage.Stat]]:
    """The root of a crawl, local ones in full, and the files below it."""
    path = storage.local_path(crawl)
    if path is not None and path.is_file():
        return str(path.resolve().parent), [storage.stat(str(path.resolve()))]
    if path is not None and not path.is_dir():
        raise RecipeError(f"{crawl}: there is no such folder: give the one that holds the crawl's files")
    root = str(path.resolve()) if path is not None else crawl.rstrip("/")
    return root, storage.list_files(root)


def _inputs(root: str, files: list[storage.Stat]) -> tuple[list[str], list[int]]:
    """Globs for the crawl files, one an ending, the most frequent first; and the sizes of the files they match.

    Plain text counts where there is nothing else: beside a crawl it is most often a note about it.
    """
    names = {file.uri.removeprefix(root).lstrip("/"): file.size for file in files}
    found = {name: format_of(name) for name in names if not _is_hidden(name) and not is_side_file(name)}
    formats = {form for form in found.values() if form}
    wanted = formats - {"text"} or formats
    crawl = [name for name, form in found.items() if form in wanted]
    endings = Counter(map(_ending, crawl))
    return [f"**/*{ending}" for ending, _ in endings.most_common()], [names[name] for name in crawl]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _ending(name: str) -> str:
    """`.warc.gz` of `a/b.c.warc.gz`."""
    compression = next((ending for ending in EXTENSIONS if name.lower().endswith(ending)), "")
    bare = name[: len(name) - len(compression)]
    return bare[bare.rindex(".") :] + name[len(bare) :]


def _part_bytes(total: int) -> int:
    """A power of two from 1 to 256 MiB that cuts the crawl into about TASKS parts."""
    wanted = max(total // TASKS, MIB)
    return min(1 << (wanted.bit_length() - 1), 256 * MIB)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
