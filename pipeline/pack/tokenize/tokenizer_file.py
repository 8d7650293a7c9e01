"""A tokenizer.json: loaded so that no text yields a token that ends or begins documents, and described.

A page may spell `</s>`. The library knows such a token by its spelling, in two places: among the added tokens, which
`encode_special_tokens` leaves alone, and in the model's vocabulary, where Unigram, WordPiece, WordLevel and a BPE that
ignores merges find it again. So the special tokens get other spellings, in both places and with the same ids, before
the file is loaded.
"""

import json
from typing import Any

import tokenizers

from schemas.generation import EndOfText, NamedToken, Tokenizer
from schemas.manifest import file_digest
from schemas.recipe import TokenizerOptions

__all__ = [
    "TokenizerError",
    "around_texts",
    "byte_letters",
    "describe_tokenizer",
    "identity_options",
    "load_tokenizer",
    "read_spec",
    "read_tokenizer",
    "reserved_ids",
    "text_spec",
]

STAND_IN = "\U0010ffff{}\U0010ffff"  # a noncharacter, which no text should hold


class TokenizerError(ValueError):
    """A tokenizer that cannot be used: its message says why and what would do."""


def load_tokenizer(data: bytes, name: str, *reserved: str) -> tokenizers.Tokenizer:
    """A tokenizer.json ready to encode documents whole and as they are.

    A document never yields a special token, nor one of `reserved`: where its text spells one out, it is encoded as any
    other text. The unknown token comes only for what the vocabulary does not know. Added tokens that are not special
    are words of the vocabulary and match as ever. Truncation and padding of the file are switched off, and nothing is
    put around texts. Raises TokenizerError when the file is not a tokenizer, or draws at random.
    """
    spec = read_spec(data, name)
    return read_tokenizer(json.dumps(text_spec(spec, *reserved)).encode(), name)


def read_spec(data: bytes, name: str) -> dict[str, Any]:
    """The JSON of a tokenizer's file. Raises TokenizerError when it is not one, or draws at random."""
    try:
        spec: dict[str, Any] = json.loads(data)
        dropout = spec["model"]["vocab"] and spec["model"].get("dropout")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TokenizerError(f"{name}: not a tokenizer.json: {_hint(data)}") from None
    if dropout:
        raise TokenizerError(f"{name}: dropout={dropout:g} encodes at random: set it to null")
    return spec


def _hint(data: bytes) -> str:
    """What to do with a file of another kind."""
    if data[:1] == b"\n" and b"<unk>" in data[:200]:  # the first piece of a ModelProto
        return (
            "it is a SentencePiece model: put it alone into a folder as tokenizer.model, convert it once with "
            "`transformers`, `sentencepiece` and `protobuf` installed, by AutoTokenizer.from_pretrained(FOLDER)"
            ".backend_tokenizer.save('tokenizer.json'), and give the tokenizer.json: its ids are SentencePiece's, "
            "where no text spells a byte token such as <0x0A>"
        )
    return "expected a JSON object with a model and its vocabulary"


def read_tokenizer(data: bytes, name: str) -> tokenizers.Tokenizer:
    """A tokenizer.json as the library reads it, with its own tokens. Raises TokenizerError when it is not one."""
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the bindings raise bare Exception
        raise TokenizerError(f"{name}: not a tokenizer.json: {' '.join(str(error).split())}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def text_spec(spec: dict[str, Any], *reserved: str) -> dict[str, Any]:
    """The file's JSON with other spellings for its special tokens and those of `reserved`."""
    added = spec.get("added_tokens") or []
    special = {token["content"] for token in added if token["special"]} | {*reserved}
    model = dict(spec["model"])
    if unknown := _unknown(model):
        # It still comes for what the vocabulary does not know; a text that spells it is known.
        special.add(unknown)
        if "unk_token" in model:
            model["unk_token"] = STAND_IN.format(unknown)
    model["vocab"] = _renamed(model["vocab"], special)
    if "merges" in model:
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        model["merges"] = [list(pair) for pair in pairs if special.isdisjoint([*pair, "".join(pair)])]
    tokens = [
        {**token, "content": STAND_IN.format(token["content"]), "special": True}
        if token["content"] in special
        else token
        for token in added
    ]
    return {**spec, "model": model, "added_tokens": tokens, "post_processor": None}


def _renamed(vocabulary: Any, special: set[str]) -> Any:
    """A vocabulary, a dictionary or Unigram's list, with the stand-ins of some tokens."""
    if isinstance(vocabulary, dict):
        return {STAND_IN.format(token) if token in special else token: number for token, number in vocabulary.items()}
    return [[STAND_IN.format(token) if token in special else token, score] for token, score in vocabulary]


def _unknown(model: dict[str, Any]) -> str | None:
    """The model's token for what it does not know."""
    if isinstance(model["vocab"], list):
        number = model.get("unk_id")
        return None if number is None else str(model["vocab"][number][0])
    return model.get("unk_token") or None


def reserved_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that no text of a dataset yields."""
    marks = [tokenizer.end_of_text, *([tokenizer.begin_of_text] if tokenizer.begin_of_text else [])]
    ids = {mark.id for mark in marks} | {*tokenizer.special_tokens.values()}
    return sorted(ids - ({tokenizer.unknown.id} if tokenizer.unknown else set()))


def describe_tokenizer(data: bytes, path: str, name: str, options: TokenizerOptions) -> Tokenizer:
    """What the manifest says of a tokenizer; `name` is how messages call it.

    Raises TokenizerError when the vocabulary lacks a token that the recipe names, with those it might be.
    """
    model, tokenizer = read_spec(data, name)["model"], read_tokenizer(data, name)
    vocabulary, unknown = tokenizer.get_vocab(with_added_tokens=True), _unknown(model)
    marks = {"end_of_text": options.end_of_text, "begin_of_text": options.begin_of_text}
    _check_marks(name, marks, unknown, model, tokenizer)
    if unknown not in vocabulary or unknown in marks.values():
        unknown = None
    size = max(vocabulary.values()) + 1
    special = {added.content: number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    begin = options.begin_of_text
    return Tokenizer(
        path=path,
        sha256=file_digest(data),
        vocab_size=size,
        token_type="uint16" if size <= 1 << 16 else "uint32",
        end_of_text=EndOfText(token=options.end_of_text, id=vocabulary[options.end_of_text]),
        begin_of_text=None if begin is None else NamedToken(token=begin, id=vocabulary[begin]),
        unknown=None if unknown is None else NamedToken(token=unknown, id=vocabulary[unknown]),
        special_tokens=dict(sorted(special.items(), key=lambda item: item[1])),
        options=identity_options(options, data),
    )


def _check_marks(
    name: str, marks: dict[str, str | None], unknown: str | None, model: dict[str, Any], tokenizer: tokenizers.Tokenizer
) -> None:
    """Raise TokenizerError for a token to end or begin documents that is not there, or that texts would yield."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    for key, token in marks.items():
        if token is not None and token not in vocabulary:
            candidates = [repr(each) for each in _candidates(tokenizer, vocabulary)]
            raise TokenizerError(
                f"{name}: no token {token!r} to {key.split('_')[0]} documents with: set tokenizer.{key} to "
                f"{' or '.join(candidates) or 'a token of its vocabulary'}"
            )
        # A byte-level vocabulary knows every text, so its unknown token never comes.
        if token is not None and token == unknown and not vocabulary.keys() >= {*byte_letters()}:
            raise TokenizerError(
                f"{name}: texts yield {token!r} for what the vocabulary does not know, so it cannot "
                f"{key.split('_')[0]} documents: set tokenizer.{key} to another token"
            )


def around_texts(data: bytes, name: str) -> list[str]:
    """The tokens that the file's post-processor puts around a text, which documents do not get."""
    tokens: list[str] = read_tokenizer(data, name).encode("").tokens
    return tokens


def identity_options(options: TokenizerOptions, data: bytes) -> dict[str, Any]:
    """The recipe's tokenizer section as recorded: of a loaded tokenizer the content counts, not where it lay."""
    begin = {} if options.begin_of_text is None else {"begin_of_text": options.begin_of_text}
    if options.file is not None:
        return {"file": file_digest(data), "end_of_text": options.end_of_text, **begin}
    rest = options.model_dump(mode="json", exclude={"file", "begin_of_text"})
    return {**rest, **begin}


def byte_letters() -> list[str]:
    """The character that stands for each byte in a vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _candidates(tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int]) -> list[str]:
    """Tokens that may end or begin documents: special ones, and those named so."""
    special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
    named = [token for token in ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]") if token in vocabulary]
    return list(dict.fromkeys(named + special))[:8]
