"""Whether `Encoder` gives the ids of the tokenizers library: all code points in contexts, all texts of a data folder.

    python -m tests.bench.agree_encoder ../shared/data [TOKENIZER_JSON ...]

Without a file: GPT-2's vocabulary, cut by each pattern that is known; vocabularies trained on the folder's texts with
each pattern, one with merges ignored as Llama 3 has it and one with a normal form as Qwen has it; and for each pattern
one that merges any two bytes, so that words cut in other places always show.
Exit 1 where ids differ. Takes minutes, which is the library's speed; `--only NAME` compares one of them.
"""

import argparse
import gzip
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from pipeline.pack.tokenize.byte_level import PATTERNS
from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.tokenize.tokenizer_file import describe_tokenizer
from pipeline.pack.tokenize.train_bpe import train_bpe
from schemas.recipe import TokenizerOptions
from tests.bench.read_everything import read_file

CONTEXTS = ("{0}", "a{0}b", " {0}", "1{0}2 ", "'{0}", "  {0}{0}\n", "'s{0}\r\n{0}", "{0}'s {0}\n")
BATCH = 2 << 20  # characters


def main() -> int:
    """Compare every tokenizer over all texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("tokenizers", type=Path, nargs="*")
    parser.add_argument("--only", metavar="NAME")
    options = parser.parse_args()
    given = {path.name: path.read_bytes() for path in options.tokenizers}
    different = 0
    for name, data in (given or {**variants(options.data), **trained(options.data), **pairs()}).items():
        if options.only not in (None, name):
            continue
        described = describe_tokenizer(data, name, name, TokenizerOptions())
        encoder, library = Encoder(data, described), Tokenizer.from_buffer(data)
        library.encode_special_tokens = True
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        texts = tokens = wrong = 0
        for batch in batches(options.data):
            ours = encoder.encode(pa.array(batch, pa.large_string()))
            for text, ids, theirs in zip(
                batch, ours, library.encode_batch_fast(batch, add_special_tokens=False), strict=True
            ):
                texts, tokens = texts + 1, tokens + len(ids) - 1
                if ids[:-1].tolist() != theirs.ids:
                    wrong += 1
                    print(f"DIFFERENT: {name}: {text[:80]!r}")
        print(f"{name}: fastokens {encoder.fast}, {texts:,} texts, {tokens:,} tokens, {wrong} different", flush=True)
        different += wrong
    return int(different > 0)


def variants(data: Path) -> dict[str, bytes]:
    """GPT-2's vocabulary behind each known pattern."""
    gpt2 = (data / "models" / "gpt2" / "tokenizer.json").read_bytes()
    result = {"gpt2": gpt2}
    for number, pattern in enumerate(PATTERNS):
        tokenizer = Tokenizer.from_str(gpt2.decode())
        tokenizer.pre_tokenizer = split_by(pattern)
        result[f"gpt2-pattern-{number}"] = with_ignored_merges(tokenizer, number == 1)
    return result


def trained(data: Path) -> dict[str, bytes]:
    """Vocabularies of 20,000 tokens, trained with each known pattern on a hundredth of the texts."""
    texts = [text for number, text in enumerate(texts_of(data)) if number % 100 == 0]
    result = {"train_bpe": train_bpe(texts, TokenizerOptions(vocab_size=20_000))}
    for number, pattern in enumerate(PATTERNS):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = split_by(pattern)
        tokenizer.normalizer = normalizers.NFC() if number == 2 else None
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        options = {"vocab_size": 20_000, "special_tokens": ["<|endoftext|>"], "initial_alphabet": alphabet}
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))
        result[f"trained-pattern-{number}"] = with_ignored_merges(tokenizer, number == 1)
    return result


def pairs() -> dict[str, bytes]:
    """For each known pattern, a vocabulary of all bytes and all pairs of bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *letters, *(a + b for a in letters for b in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    result = {}
    for number, pattern in enumerate(PATTERNS):
        tokenizer = Tokenizer(models.BPE(vocabulary, [(a, b) for a in letters for b in letters]))
        tokenizer.pre_tokenizer = split_by(pattern)
        result[f"pairs-pattern-{number}"] = with_ignored_merges(tokenizer, False)
    return result


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Words cut by a pattern, then letters for bytes."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


def with_ignored_merges(tokenizer: Tokenizer, ignore: bool) -> bytes:
    """The tokenizer's file; where merges are ignored, a word of the vocabulary is one token whatever they say."""
    spec = json.loads(tokenizer.to_str())
    spec["model"]["ignore_merges"] = ignore
    return json.dumps(spec).encode()


def batches(data: Path) -> Iterator[list[str]]:
    """Texts of the folder by about BATCH characters."""
    batch: list[str] = []
    for text in [*code_points(), *texts_of(data)]:
        batch.append(text)
        if sum(map(len, batch[-200:])) > BATCH or len(batch) >= 200:
            yield batch
            batch = []
    yield batch


def code_points() -> Iterator[str]:
    """Every code point in each context, a thousand to a text."""
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for context in CONTEXTS:
        for first in range(0, len(points), 1000):
            yield "".join(context.format(chr(point)) for point in points[first : first + 1000])


def texts_of(data: Path) -> Iterator[str]:
    """Every plain and JSON Lines text of the folder, and the bodies of its crawls as they are, markup and all."""
    for path in sorted(data.rglob("*")):
        if path.suffix == ".txt":
            yield path.read_text(encoding="utf-8", errors="replace")
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
                yield from lines
    for path in sorted((data / "warc" / "crawl").glob("*.gz")):
        if ".warc" in path.name:
            for record in read_file(path)[0]:
                yield record.text or (record.body or b"").decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
