"""The dataset's tokenizer: resolved at generation 1, the same in all later ones. Contracts, section 5."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

from pipeline.ingest.receipts import PartRef
from pipeline.pack.files import write_once, write_work
from pipeline.pack.groups import PackPart, pack_parts
from pipeline.pack.receipts import WorkReceipt
from pipeline.pack.tokenize.sample import choose_sample
from pipeline.pack.tokenize.tokenizer_file import (
    TokenizerError,
    describe_tokenizer,
    identity_options,
    load_tokenizer,
    read_tokenizer,
)
from pipeline.pack.tokenize.train_bpe import TRAINER_VERSION, first_tokens, train_bpe
from schemas import storage
from schemas.config_model import file_of
from schemas.dataset import Dataset
from schemas.generation import Tokenizer
from schemas.manifest import named_by_content, read_manifest
from schemas.recipe import Recipe, TokenizerOptions, canonical_json
from schemas.text_format import plural

__all__ = ["check_tokenizer", "inspect", "resolve_tokenizer", "train_from_parts", "train_tokenizer"]


def resolve_tokenizer(
    parts: Sequence[PackPart], recipe: Recipe, dataset: str, work: str, previous: Dataset | None
) -> Tokenizer:
    """Load or train the tokenizer and put it into the dataset; in later generations, the one that is there.

    Raises TokenizerError when the file is not usable, or the recipe names another than the dataset has.
    """
    options = recipe.tokenizer
    given = _read(options.file) if options.file is not None else b""
    if previous:
        kept = previous.manifest.tokenizer
        wanted = identity_options(options, given)
        if wanted != kept.options:
            differing = sorted(key for key in {*wanted, *kept.options} if wanted.get(key) != kept.options.get(key))
            raise TokenizerError(
                f"tokenizer: {dataset} is encoded with another tokenizer ({', '.join(differing)} differ), and a "
                "dataset keeps its own: undo the change, or give another output"
            )
        return kept
    data = given or train_tokenizer(parts, recipe, dataset, work)
    file = named_by_content("tokenizer", ".json", data)
    described = describe_tokenizer(data, file.path, options.file or "the trained tokenizer", options)
    write_once(dataset, file.path, data)
    return described


def check_tokenizer(options: TokenizerOptions) -> None:
    """Raise ConfigError for a tokenizer that a run could not load or train, before the run has done anything."""
    if options.file is None:
        first_tokens(options)
    else:
        with file_of("tokenizer.file"):
            describe_tokenizer(_read(options.file), "", options.file, options)


def train_tokenizer(parts: Sequence[PackPart], recipe: Recipe, dataset: str, work: str) -> bytes:
    """Train on a sample of the kept documents, unless the work folder has the result."""
    sample = choose_sample(parts, recipe.seed, recipe.tokenizer.sample_bytes)
    options = identity_options(recipe.tokenizer, b"")
    made_from = canonical_json([sample.digest, options, version("tokenizers"), TRAINER_VERSION])
    name = f"tokenizer-{hashlib.sha256(made_from).hexdigest()[:16]}.json"
    if WorkReceipt.load(work, name, dataset) is None:
        data = train_bpe(sample.texts(), recipe.tokenizer)
        WorkReceipt(in_work=write_work(work, f"pack/trained-{name}", data), in_dataset={}).save(work, name)
    return storage.read(storage.join(work, f"pack/trained-{name}"))


def _read(file: str) -> bytes:
    try:
        return storage.read(file)
    except FileNotFoundError:
        raise TokenizerError(f"{file}: no such tokenizer file") from None


def train_from_parts(parts: Sequence[PartRef], verdicts: Sequence[str], recipe: Recipe, to: str) -> str:
    """Train the recipe's tokenizer and write it to a file; returns one line about it. `verdicts`: a URI a part."""
    uris = {part.number: uri for part, uri in zip(parts, verdicts, strict=True)}
    sample = choose_sample(
        pack_parts(parts, lambda part: uris[part.number]), recipe.seed, recipe.tokenizer.sample_bytes
    )
    data = train_bpe(sample.texts(), recipe.tokenizer)
    storage.write(to, data)
    size = read_tokenizer(data, to).get_vocab_size()
    return f"{to}: {plural(size, 'token')}, trained on {plural(sample.num_bytes, 'byte')} of kept text"


def inspect(file: str, text: str | None = None) -> str:
    """What a tokenizer.json (or a dataset's tokenizer) is, and how it encodes a text."""
    if not file.endswith(".json"):
        file = storage.join(file, read_manifest(file).tokenizer.path)
    data = _read(file)
    tokenizer = read_tokenizer(data, file)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values()) + 1
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    special = [f"{token.content} {number}" for number, token in added if token.special]
    words = [f"{token.content!r} {number}" for number, token in added if not token.special]
    kind = "uint16" if size <= 1 << 16 else "uint32"
    lines = [
        file,
        f"model    {type(tokenizer.model).__name__}, {plural(len(vocabulary), 'token')}, ids below {size:,}, {kind}",
        f"special  {', '.join(special) or 'none'}",
        f"added    {', '.join(words) or 'none'}",
    ]
    if text is not None:
        encoding = load_tokenizer(data, file).encode(text, add_special_tokens=False)
        size = len(text.encode())
        lines += [f"{number:>8}  {token}" for number, token in zip(encoding.ids, encoding.tokens, strict=True)]
        lines.append(f"{plural(len(encoding.ids), 'token')} for {plural(size, 'byte')}")
    return "\n".join(lines)
