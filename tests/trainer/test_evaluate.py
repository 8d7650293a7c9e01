"""Validation: what is counted, in which windows, and that ranks and batches have no part in it."""

import itertools
import math
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from schemas.dataset import DatasetError, open_dataset
from tests.made_dataset import MadeDataset, some_documents
from trainer.config import Parallel
from trainer.distributed.mesh import World, join_world
from trainer.distributed.parallelize import parallelize
from trainer.evaluate.perplexity import Text, Windows, evaluate, file_texts, validation_texts
from trainer.model.transformer import ModelConfig, Transformer

CONFIG = ModelConfig(vocab_size=50, dim=16, layers=2, heads=2, ffn_dim=24, max_positions=64)
END = 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with join_world(Parallel(threads=1), "cpu") as world:
        yield world


def built(seed: int = 1) -> Transformer:
    model, random = Transformer(CONFIG), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=random) + (parameter.ndim == 1))
    return model


def text(tokens: list[int], name: str = "a", num_bytes: int = 100, piece: int = 7) -> Text:
    pieces = [np.array(tokens[start : start + piece], np.uint16) for start in range(0, len(tokens), piece)]
    return Text(name, len(tokens), num_bytes, lambda: iter(pieces))


def windows(length: int = 8, batch: int = 3, mask: str = "none") -> Windows:
    return Windows(length, batch, END, special=[END], mask=mask)


DOCUMENTS = [[5, 6, 7, END], [8, 9, 10, 11, 12, 13, 14, 15, 16, END], [17, END], [*range(18, 40), END]]
TOKENS = [token for document in DOCUMENTS for token in document]  # 39


def nats_by_hand(model: Transformer, tokens: list[int], length: int) -> list[float]:
    """-ln p of each token, window by window, one at a time."""
    found = []
    for start in range(0, len(tokens), length):
        targets = torch.tensor(tokens[start : start + length])
        inputs = torch.tensor([END, *tokens][start : start + len(targets)])
        with torch.no_grad():
            found += F.cross_entropy(model(inputs[None])[0], targets, reduction="none").tolist()
    return found


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("length", [5, 8, 13, 39, 64])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_token_is_scored_once_in_its_window(world: World, length: int, batch: int) -> None:
    model = built()
    score = evaluate(model, [text(TOKENS)], world, windows(length, batch))["a"]
    nats = nats_by_hand(model, TOKENS, length)
    assert (score.num_tokens, score.num_bytes) == (39, 100)
    assert score.loss == pytest.approx(sum(nats) / 39, rel=1e-6)
    assert score.perplexity_without_stride == pytest.approx(math.exp(sum(nats) / 39), rel=1e-5)


def test_bits_per_byte_leave_special_tokens_out(world: World) -> None:
    model = built()
    score = evaluate(model, [text(TOKENS, num_bytes=77)], world, windows())["a"]
    of_text = [n for n, token in zip(nats_by_hand(model, TOKENS, 8), TOKENS, strict=True) if token != END]
    assert len(of_text) == 35
    assert score.bits_per_byte == pytest.approx(sum(of_text) / math.log(2) / 77, rel=1e-6)


def test_a_uniform_model_needs_log2_v_bits_a_token(world: World) -> None:
    model = built()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    score = evaluate(model, [text(TOKENS, num_bytes=35)], world, windows())["a"]
    assert score.loss == pytest.approx(math.log(50), rel=1e-6)
    assert score.perplexity_without_stride == pytest.approx(50, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(math.log2(50), rel=1e-6)


def test_texts_do_not_flow_into_each_other(world: World) -> None:
    model, other = built(), TOKENS[::-1]
    both = evaluate(model, [text(TOKENS, "a"), text(other, "b")], world, windows())
    assert both["a"] == evaluate(model, [text(TOKENS, "a")], world, windows())["a"]
    assert both["b"] == evaluate(model, [text(other, "b")], world, windows())["b"]
    assert both["a"].loss != both["b"].loss


def test_with_masks_a_document_is_scored_as_if_alone(world: World) -> None:
    model = built()
    score = evaluate(model, [text(TOKENS)], world, windows(39, mask="documents"))["a"]
    alone = [n for document in DOCUMENTS for n in nats_by_hand(model, document, 39)]
    assert score.loss == pytest.approx(sum(alone) / 39, rel=1e-6)
    assert score.loss != pytest.approx(evaluate(model, [text(TOKENS)], world, windows(39))["a"].loss, rel=1e-3)


def test_a_document_cut_by_a_window_begins_anew_with_masks(world: World) -> None:
    model = built()
    score = evaluate(model, [text(TOKENS)], world, windows(10, batch=2, mask="documents"))["a"]
    total = 0.0
    for start in range(0, 39, 10):
        inputs, targets = [END, *TOKENS][start : min(start + 10, 39)], TOKENS[start : start + 10]
        cuts = [0, *(place for place in range(1, len(inputs)) if inputs[place] == END), len(inputs)]
        for first, end in itertools.pairwise(cuts):
            with torch.no_grad():
                logits = model(torch.tensor([inputs[first:end]]))[0]
            total += F.cross_entropy(logits, torch.tensor(targets[first:end]), reduction="sum").item()
    assert score.loss == pytest.approx(total / 39, rel=1e-6)


THREE = [text(TOKENS, "a"), text(TOKENS[10:], "b"), text(TOKENS[:9], "c")]  # 11 batches of 2 windows of 4


def score_as_rank(rank: int, size: int, file: str, results: str) -> None:
    """One process of several: writes its scores."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    mesh = dist.device_mesh.init_device_mesh("cpu", (size,))
    group = dist.group.WORLD
    assert group is not None
    world = World(rank, size, rank, size, torch.device("cpu"), mesh, group)
    model = built()
    parallelize(model, world, Parallel(), torch.float32)
    torch.save(evaluate(model, THREE, world, windows(4, batch=2)), f"{results}-{rank}")
    dist.destroy_process_group()


def test_ranks_have_no_part_in_the_result(world: World, tmp_path: Path) -> None:
    """11 batches over 2 ranks: the last turn is not full, and a sharded model hangs if a rank sits it out."""
    alone = evaluate(built(), THREE, world, windows(4, batch=2))
    multiprocessing.set_forkserver_preload([__name__])  # imports torch once, not once a process
    arguments = (2, str(tmp_path / "meet"), str(tmp_path / "scores"))
    mp.start_processes(score_as_rank, arguments, nprocs=2, start_method="forkserver")
    for rank in range(2):
        assert torch.load(f"{tmp_path}/scores-{rank}", weights_only=False) == alone


def test_parameters_are_shards_again_afterwards(world: World) -> None:
    model = built()
    parallelize(model, world, Parallel(), torch.bfloat16)
    before = [type(parameter) for parameter in model.parameters()]
    evaluate(model, [text(TOKENS)], world, windows())
    assert [type(parameter) for parameter in model.parameters()] == before
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.grad is not None for parameter in model.parameters())


# ---------------------------------------------------------------- texts


@pytest.fixture
def dataset(tmp_path: Path) -> MadeDataset:
    made = MadeDataset(tmp_path / "dataset", vocab_size=50)
    made.add("web", some_documents(500, seed=0, vocab_size=50))
    made.add("web", some_documents(60, seed=1, vocab_size=50), split="validation")
    made.add("books", some_documents(90, seed=2, vocab_size=50), split="validation")
    made.add("web", some_documents(70, seed=3, vocab_size=50), split="validation")
    made.commit()
    return made


def texts_of(dataset: MadeDataset, max_tokens: int = 10_000) -> dict[str, Text]:
    folder = str(dataset.folder.parent / "cache")
    found = validation_texts(open_dataset(dataset.uri), max_tokens, folder)
    assert [each.name for each in found] == sorted(each.name for each in found)
    return {each.name: each for each in found}


def read(each: Text) -> list[int]:
    return np.concatenate(list(each.pieces())).tolist()


def test_validation_shards_are_read_in_stored_order_by_source(dataset: MadeDataset) -> None:
    texts = texts_of(dataset)
    assert list(texts) == ["books", "web"]
    expected = [*dataset.stream_of(1), *dataset.stream_of(3)]
    assert read(texts["web"]) == expected
    assert (texts["web"].num_tokens, texts["web"].num_bytes) == (130, 520)
    assert read(texts["web"]) == expected  # again
    assert read(texts["books"]) == list(dataset.stream_of(2))


def test_retired_shards_are_not_read(dataset: MadeDataset) -> None:
    dataset.retire(1)
    dataset.commit()
    assert read(texts_of(dataset)["web"]) == list(dataset.stream_of(3))


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("document", [1, -2, -1])
def test_a_limit_takes_whole_documents_and_counts_their_bytes(dataset: MadeDataset, document: int, beside: int) -> None:
    documents = [*dataset.shards[1].documents, *dataset.shards[3].documents]
    ends = np.cumsum([len(document) for document in documents])
    max_tokens = int(ends[document]) + beside
    each = texts_of(dataset, max_tokens)["web"]
    count = int((ends <= max_tokens).sum())
    expected = [token for document in documents[:count] for token in document]
    assert read(each) == expected
    assert (each.num_tokens, each.num_bytes) == (len(expected), 4 * len(expected))


def test_a_limit_at_the_end_of_a_shard_takes_none_of_the_next(dataset: MadeDataset) -> None:
    assert read(texts_of(dataset, 60)["web"]) == list(dataset.stream_of(1))


def test_a_limit_below_the_first_document_takes_it_whole(dataset: MadeDataset) -> None:
    assert read(texts_of(dataset, 1)["books"]) == list(dataset.shards[2].documents[0])


def test_a_shard_that_is_not_the_manifests_is_named(dataset: MadeDataset) -> None:
    data = bytearray(dataset.path(3).read_bytes())
    data[-100] ^= 1
    dataset.path(3).write_bytes(data)
    with pytest.raises(DatasetError, match=r"g1-00003-web-validation.*its sha256 is"):
        texts_of(dataset)
    dataset.path(3).unlink()
    with pytest.raises(DatasetError, match=r"g1-00003-web-validation.*is missing"):
        texts_of(dataset)


def test_a_dataset_is_scored_from_its_shards(world: World, dataset: MadeDataset) -> None:
    texts = texts_of(dataset)
    model = built()
    scores = evaluate(model, list(texts.values()), world, windows(16))
    nats = nats_by_hand(model, read(texts["web"]), 16)
    assert scores["web"].loss == pytest.approx(sum(nats) / 130, rel=1e-6)
    assert set(scores) == {"books", "web"}


def byte_tokenizer() -> tokenizers.Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {"<|endoftext|>": 0, **{letter: number for number, letter in enumerate(alphabet, start=1)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_a_file_is_one_document_and_bytes_are_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("naïve 猫\n", encoding="utf-8")
    (each,) = file_texts({"cats": str(tmp_path / "a.txt")}, byte_tokenizer(), END)
    assert (each.name, each.num_bytes, each.num_tokens) == ("cats", 11, 12)
    assert read(each)[-1] == END
    assert END not in read(each)[:-1]


def test_text_that_spells_out_a_special_token_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a<|endoftext|>b")
    (each,) = file_texts({"a": str(tmp_path / "a.txt")}, byte_tokenizer(), END)
    assert read(each).count(END) == 1


def test_files_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="empty: the file is empty"):
        file_texts({"a": str(tmp_path / "empty")}, byte_tokenizer(), END)
    with pytest.raises(ValueError, match="latin: not UTF-8 text"):
        file_texts({"a": str(tmp_path / "latin")}, byte_tokenizer(), END)
