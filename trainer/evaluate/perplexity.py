"""Validation loss, perplexity and bits per byte, per source of a dataset and per plain-text file.

A text is cut into windows of T tokens without overlap, in stored order: no stride, so that a token at the beginning
of a window has little context, as in training. Every token is a target once; the last window is padded.
B windows of a batch, T positions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tokenizers
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from schemas import storage
from schemas.dataset import Dataset, DatasetError, ShardFile, check_digest, map_shard
from trainer.distributed.mesh import World
from trainer.distributed.parallelize import inference
from trainer.model.transformer import IGNORED, Transformer

__all__ = ["Score", "Text", "Windows", "evaluate", "file_texts", "read_text", "validation_texts"]

Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Text:
    """Documents that are scored together."""

    name: str
    num_tokens: int  # end-of-text of each document included
    num_bytes: int  # UTF-8, of the documents' text
    pieces: Callable[[], Iterator[Tokens]]  # the tokens in order, cut anywhere


@dataclass(frozen=True)
class Score:
    """What a model makes of a text; `loss` and perplexity count end-of-text, as the training loss does."""

    num_tokens: int
    num_bytes: int
    loss: float  # nats a token
    perplexity_without_stride: float
    bits_per_byte: float  # special tokens left out


@dataclass(frozen=True)
class Windows:
    """How texts are cut and fed: as in training, or the loss is of something that the model has not learned."""

    sequence_length: int
    batch: int  # windows at once, on each rank
    end_of_text: int  # before the first token of a text
    special: Sequence[int]  # ids that stand for no text
    mask: str = "none"  # documents: attention stays inside a document, positions restart


def evaluate(
    model: Transformer,
    texts: Sequence[Text],
    world: World,
    windows: Windows,
    heartbeat: Callable[[], None] = lambda: None,
) -> dict[str, Score]:
    """Return the score of each text, by name; all ranks must call. Calls `heartbeat` at every batch.

    Batches are dealt out in turn, and their sums added up in one fixed order in fp64: the number of ranks has no part
    in the result. Every rank makes equally many forward passes (on padding, if need be), because
    those of a sharded model are collective. Shapes are the same in all of them.
    """
    if not texts:
        return {}
    num_batches = [-(-text.num_tokens // (windows.sequence_length * windows.batch)) for text in texts]
    nats = torch.zeros(sum(num_batches), 2, dtype=torch.float64)  # a batch's: all, special tokens left out
    batches = islice(_batches(texts, windows), world.rank, None, world.size)
    special = torch.tensor(windows.special, dtype=torch.int64)
    with inference(model):
        for turn in range(-(-len(nats) // world.size)):
            heartbeat()
            inputs_BT, targets_BT = next(batches, _padding(windows))
            each_BT = _score(model, inputs_BT, targets_BT, world.device, windows)
            number = turn * world.size + world.rank
            if number < len(nats):
                nats[number, 0] = each_BT.sum()
                nats[number, 1] = each_BT[~torch.isin(targets_BT, special)].sum()
    dist.all_reduce(nats, group=world.control)  # every row has one rank that is not zero: exact
    parts = nats.split(num_batches)
    return {text.name: _result(text, part) for text, part in zip(texts, parts, strict=True)}


def _score(model: Transformer, inputs_BT: Tensor, targets_BT: Tensor, device: torch.device, windows: Windows) -> Tensor:
    """Nats of each target in fp64 on the CPU, where 100,000 are added up in the same order on any device."""
    positions_BT = documents_BT = None
    if windows.mask == "documents":
        positions_BT, documents_BT = (x.to(device) for x in _documents(inputs_BT, targets_BT, windows.end_of_text))
    tokens_BT, wanted_BT = inputs_BT.to(device), targets_BT.to(device)
    return model(tokens_BT, wanted_BT, positions_BT, documents_BT, reduction="none").cpu().double()


def _result(text: Text, nats: Tensor) -> Score:
    total, of_text = (math.fsum(column) for column in nats.T.tolist())
    loss = total / text.num_tokens
    perplexity = math.exp(loss) if loss < 700 else math.inf
    bits = of_text / (math.log(2) * text.num_bytes) if text.num_bytes else math.nan
    return Score(text.num_tokens, text.num_bytes, loss, perplexity, bits)


# ---------------------------------------------------------------- windows


def _batches(texts: Sequence[Text], windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T): those of each text in order, its last batch padded."""
    size = windows.sequence_length * windows.batch
    for text in texts:
        before = windows.end_of_text
        for targets in _blocks(text.pieces(), size):
            inputs = np.concatenate([[before], targets[:-1]])
            before = int(targets[-1])
            padding = (0, size - len(targets))
            inputs = np.pad(inputs, padding, constant_values=windows.end_of_text)
            padded = np.pad(targets, padding, constant_values=IGNORED)
            shape = (windows.batch, windows.sequence_length)
            yield torch.from_numpy(inputs).view(shape), torch.from_numpy(padded).view(shape)


def _blocks(pieces: Iterator[Tokens], size: int) -> Iterator[NDArray[np.int64]]:
    """The same tokens in blocks of `size`; the last may be shorter."""
    held = np.empty(0, np.int64)
    for piece in pieces:
        held = np.concatenate([held, piece.astype(np.int64)])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held


def _padding(windows: Windows) -> tuple[Tensor, Tensor]:
    shape = (windows.batch, windows.sequence_length)
    return torch.full(shape, windows.end_of_text), torch.full(shape, IGNORED)


def _documents(inputs_BT: Tensor, targets_BT: Tensor, end_of_text: int) -> tuple[Tensor, Tensor]:
    """Positions and document numbers: a document's first input is the end-of-text before it. Padding has -1."""
    begins_BT = inputs_BT == end_of_text
    begins_BT[:, 0] = True
    documents_BT = begins_BT.cumsum(dim=1) - 1
    places_T = torch.arange(inputs_BT.shape[1])
    positions_BT = places_T - torch.where(begins_BT, places_T, 0).cummax(dim=1).values
    return positions_BT, documents_BT.masked_fill(targets_BT == IGNORED, -1)


# ---------------------------------------------------------------- texts


def file_texts(files: Mapping[str, str], tokenizer: tokenizers.Tokenizer, end_of_text: int) -> list[Text]:
    """Plain-text files (name: URI), each one document, encoded as the dataset's documents are.

    Raises ValueError for a file that is not UTF-8 or has nothing in it.
    """
    return [_file_text(name, uri, tokenizer, end_of_text) for name, uri in files.items()]


def read_text(uri: str) -> str:
    """A plain-text file. Raises ValueError for one that is not UTF-8 or has nothing in it."""
    try:
        text = storage.read(uri).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri}: not UTF-8 text ({error}): convert it first") from None
    if not text:
        raise ValueError(f"{uri}: the file is empty: there is nothing to measure")
    return text


def _file_text(name: str, uri: str, tokenizer: tokenizers.Tokenizer, end_of_text: int) -> Text:
    text = read_text(uri)
    tokens = np.array([*tokenizer.encode(text, add_special_tokens=False).ids, end_of_text])
    return Text(name, len(tokens), len(text.encode()), lambda: iter([tokens]))


def validation_texts(dataset: Dataset, max_tokens: int, folder: str) -> list[Text]:
    """The validation documents of each source, in stored order, as many as `max_tokens` hold (one at least).

    Remote shards are copied into `folder`. Raises DatasetError for a shard that is missing or is not the one that
    the manifest names.
    """
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in dataset.shards("validation").to_pylist():
        if row["rows"]:
            by_source.setdefault(row["source"], []).append(row)
    return [
        _source_text(name, dataset.uri, by_source[name], max_tokens, folder)
        for name in sorted(by_source, key=lambda name: name.encode())
    ]


def _source_text(name: str, dataset: str, rows: Sequence[Mapping[str, Any]], max_tokens: int, folder: str) -> Text:
    """The first documents of a source's shards; only the shard in which the limit falls is read here."""
    shards: list[tuple[ShardFile, int]] = []  # and tokens taken of each
    num_tokens = num_bytes = 0
    for row in rows:
        shard = _local_shard(dataset, row, folder)
        taken, size = row["tokens"], row["text_bytes"]
        if num_tokens + taken > max_tokens:
            taken, size = _first_documents(shard, max_tokens - num_tokens, at_least=0 if num_tokens else 1)
        shards.append((shard, taken))
        num_tokens, num_bytes = num_tokens + taken, num_bytes + size
        if taken < row["tokens"]:
            break
    return Text(name, num_tokens, num_bytes, lambda: _tokens_of(shards))


def _first_documents(shard: ShardFile, max_tokens: int, at_least: int) -> tuple[int, int]:
    """Tokens and bytes of the documents that fit, or of the first `at_least`."""
    ends = np.cumsum(shard.num_tokens())
    count = max(int(np.searchsorted(ends, max_tokens, side="right")), at_least)
    return int(ends[count - 1]) if count else 0, int(shard.num_bytes()[:count].sum())


def _tokens_of(shards: Sequence[tuple[ShardFile, int]]) -> Iterator[Tokens]:
    for shard, left in shards:
        for batch in shard.batches:
            tokens: Any = np.from_dlpack(batch["tokens"].flatten())[:left]
            left -= len(tokens)
            yield tokens


def _local_shard(dataset: str, row: Mapping[str, Any], folder: str) -> ShardFile:
    uri = storage.join(dataset, row["path"])
    try:
        path = storage.fetch(uri, folder)
    except FileNotFoundError:
        raise DatasetError(f"{uri}: a validation shard is missing; the dataset is not complete") from None
    check_digest(path, row["sha256"], uri)
    return map_shard(str(path))
