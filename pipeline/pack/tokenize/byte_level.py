"""Byte-level BPE by fastokens, which gives the ids of the tokenizers library many times as fast.

`byte_level_like` knows the shapes whose ids were compared for every code point and for every text at hand
(`tests/bench/agree_encoder.py`): the files of GPT-2, GPT-4, Llama 3, Qwen, and those that `train_bpe` makes. What it
does not recognise, and what the installed library encodes in another way, is left to the library.
"""

import json
from collections.abc import Sequence
from typing import Any

import fastokens
import numpy as np
import tokenizers
from numpy.typing import NDArray

from pipeline.pack.tokenize.tokenizer_file import byte_letters

__all__ = ["PATTERNS", "ByteLevel", "byte_level_like", "probe_text"]

# GPT-2 (Radford et al. 2019; `ByteLevel` of the tokenizers library).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# cl100k (GPT-4, Llama 3); Qwen 2 and 2.5 take digits one by one, where these take up to three.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = (GPT2, CL100K % "{1,3}", CL100K % "")  # as tokenizer.json files spell them
FORMS = ("NFC", "NFD", "NFKC", "NFKD")

PROBE_MARKS = ("'", " '", "''", " ", "  ", "\n", " \n ", "\r\n\t", "\u00a0", "\u3000 ", "-", " -", "...\n\n", "1")
PROBE_WORDS = ("s", "T", "re", "VE", "lL", "dm", "\u017f", "12345", "\u0663\u0663", "\u6f22", "e\u0301", "!?", "\x85")


class ByteLevel:
    """A tokenizer.json that fastokens encodes with, in one thread, without any of its added tokens."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.added = tuple(token["content"] for token in spec.get("added_tokens") or [] if not token["special"])
        self._fast = fastokens.Tokenizer.from_json_str(json.dumps(_words_only(spec)))

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of the texts laid end to end, and where each text's begin, with the end of the last."""
        ids, offsets = self._fast.encode_batch_flat(list(texts))
        return np.frombuffer(ids, "<u4"), np.frombuffer(offsets, "<u8").astype(np.int64)


def byte_level_like(spec: dict[str, Any], library: tokenizers.Tokenizer) -> ByteLevel | None:
    """A tokenizer.json for fastokens, if it is of a known shape and gives a probe the ids that the library gives it.

    Letters and numbers are those of a Unicode version, and the library's may be another than that of fastokens: then
    the probe comes out in other words.
    """
    if not _is_known(spec):
        return None
    fast = ByteLevel(spec)
    form, probe = library.normalizer, probe_text()
    ids, _ = fast.encode([form.normalize_str(probe) if form else probe])
    (expected,) = library.encode_batch_fast([probe], add_special_tokens=False)
    return fast if ids.tolist() == expected.ids else None


def probe_text() -> str:
    """A text that another pattern or table of letters cuts into other words: 10,000 code points in context.

    It has every code point of some blocks, one of each 16 of planes 0 and 1, so some of each script, and of each 256 of
    planes 2 and 3: Unicode versions differ by whole scripts. Then what patterns treat in their own way.
    """
    marks = {*range(0x800), *range(0x1800, 0x1810), *range(0x2000, 0x2070), *range(0x3000, 0x3010)}
    points = (marks | {*range(0, 0x20000, 16), *range(0x20000, 0x40000, 256)}) - {*range(0xD800, 0xE000)}
    shapes = (f"{mark}{word}{tail}" for mark in PROBE_MARKS for word in PROBE_WORDS for tail in PROBE_MARKS)
    return "".join(f"a{c}1{c}'s {c}\n" for c in map(chr, sorted(points))) + "".join(shapes)


def _words_only(spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a tokenizer.json that cuts and encodes words; the library itself does what comes before.

    Differs: GPT-2's pattern is given as `ByteLevel`, which cuts by it too, never as a Split: as one, fastokens 0.3.5
    takes U+180E for a space, which it is not since Unicode 6.3.
    """
    result = {"version": spec.get("version", "1.0"), "model": spec["model"], "pre_tokenizer": spec["pre_tokenizer"]}
    split = (spec["pre_tokenizer"].get("pretokenizers") or [{}])[0]
    if split.get("pattern", {}).get("Regex") == GPT2:
        result["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return result


def _is_known(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is a byte-level BPE of a shape that was compared with the library."""
    model, normalizer = spec["model"], spec.get("normalizer") or {}
    if model.get("type") != "BPE" or normalizer.get("type", "NFC") not in FORMS:
        return False
    if any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return False
    vocabulary = model["vocab"]
    if not vocabulary.keys() >= {*byte_letters()} or len({*vocabulary.values()}) < len(vocabulary):
        return False
    return _has_known_pattern(spec.get("pre_tokenizer") or {})


def _has_known_pattern(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether texts are cut by ByteLevel, alone or after a Split by a known pattern."""
    *splits, last = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return False
    by_itself: bool = last.get("use_regex", True)
    if not splits:
        return by_itself
    split = splits[0]
    if by_itself or len(splits) > 1 or split.get("type") != "Split":
        return False
    return split["behavior"] == "Isolated" and not split["invert"] and split["pattern"].get("Regex") in PATTERNS
