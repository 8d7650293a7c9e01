"""Runs that start from the weights of a folder: what is refused, what is changed, what is not needed any more."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch

from schemas.config_model import ConfigError
from tests.made_dataset import MadeDataset
from tests.trainer.tiny import VOCABULARY, config, events, learnable, losses, run, written
from trainer.cli import main
from trainer.data.train_split import TrainSplit
from trainer.model.huggingface import Words, export, read_config
from trainer.model.start_from import check_tokenizer
from trainer.model.transformer import ModelConfig, Transformer

SHAPE = ModelConfig(vocab_size=VOCABULARY, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=64, max_positions=32)


def tokenizer(*, swap: bool = False, more: int = 0) -> bytes:
    """A tokenizer of VOCABULARY words and `more`; with `swap` two of them have changed places."""
    names = ["<|endoftext|>", *(f"w{number}" for number in range(1, VOCABULARY + more))]
    if swap:
        names[7], names[9] = names[9], names[7]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: n for n, name in enumerate(names)}, names[1]))
    return made.to_str().encode()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


@pytest.fixture(autouse=True)
def dataset_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainSplit, "tokenizer", property(lambda _: tokenizer()))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A folder with a model."""
    model = Transformer(SHAPE)
    model.init_weights(11)
    folder = tmp_path / "start"
    words = Words(tokenizer(), "<|endoftext|>", 0)
    export(model.state_dict(), SHAPE, words, str(folder), torch.float32)
    return folder


def started(dataset: MadeDataset, output: Path, start: Path, **changes: object):  # type: ignore[no-untyped-def]
    return config(dataset, output, **{"model": {"start_from": str(start)}, "evaluate__every": 20, **changes})


def test_a_run_starts_from_the_weights_and_does_not_need_them_later(
    dataset: MadeDataset, tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(started(dataset, tmp_path / "whole", start))
    assert whole != run(config(dataset, tmp_path / "other"))
    settings = started(dataset, tmp_path / "run", start, schedule__steps=10, evaluate__every=10)
    run(settings)
    shutil.rmtree(start)
    path = str(written(tmp_path / "run.yaml", started(dataset, tmp_path / "run", start)))
    assert main([path]) == 0
    assert len(losses(tmp_path / "run")) == 20
    assert main(["evaluate", path]) == 0
    assert main(["export", path, "--to", str(tmp_path / "model")]) == 0
    assert read_config(str(tmp_path / "model")) == SHAPE
    with pytest.raises(ConfigError, match=r"no config\.json there"):
        run(started(dataset, tmp_path / "new", start))


def test_another_tokenizer_is_refused_and_a_key_allows_it(dataset: MadeDataset, tmp_path: Path, start: Path) -> None:
    (start / "tokenizer.json").write_bytes(tokenizer(swap=True))
    with pytest.raises(ConfigError, match=r"another tokenizer: token 7 is 'w7' in the dataset and 'w9' there"):
        run(started(dataset, tmp_path / "run", start))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    options = {"schedule__steps": 5, "schedule__warmup_steps": 1}
    run(started(dataset, tmp_path / "run", start, model__check_tokenizer=False, **options))
    run(started(dataset, tmp_path / "run", start, schedule__steps=6, schedule__warmup_steps=1))  # it runs already


@pytest.mark.parametrize(
    ("folder", "data", "fits"),
    [
        (tokenizer(), tokenizer(), True),
        (tokenizer(more=5), tokenizer(), True),
        (tokenizer(), tokenizer(more=5), True),
        (tokenizer(swap=True), tokenizer(), False),
        (tokenizer(), tokenizer(swap=True, more=5), False),
        (None, tokenizer(), False),
    ],
)
def test_tokens_must_have_one_meaning_where_both_know_them(
    tmp_path: Path, folder: bytes | None, data: bytes, fits: bool
) -> None:
    if folder is not None:
        (tmp_path / "tokenizer.json").write_bytes(folder)
    if fits:
        check_tokenizer(str(tmp_path), data)
    else:
        with pytest.raises(ConfigError, match=r"model\.check_tokenizer: false"):
            check_tokenizer(str(tmp_path), data)


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [("dim", 64, 32), ("layers", 3, 2), ("heads", 8, 4), ("qk_norm", True, False), ("tied", True, False),
     ("vocab_size", 128, 64), ("norm_eps", 0.1, 1e-5), ("ffn_dim", 65, 64)],
)  # fmt: skip
def test_a_shape_beside_the_weights_is_refused_unless_it_is_theirs(
    dataset: MadeDataset, tmp_path: Path, start: Path, name: str, value: object, has: object
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}={value}: .*/start has {has}.*leave it out"):
        run(started(dataset, tmp_path / "run", start, **{f"model__{name}": value}))
    options = {f"model__{name}": has, "schedule__steps": 2, "schedule__warmup_steps": 1}
    assert len(run(started(dataset, tmp_path / "run", start, **options))) == 2


def test_a_longer_context_needs_other_rotary_positions_and_gets_them(
    dataset: MadeDataset, tmp_path: Path, start: Path
) -> None:
    longer = {"data__sequence_length": 64, "data__global_batch": 4, "schedule__steps": 4, "schedule__warmup_steps": 1}
    with pytest.raises(ConfigError, match=r"was made for 32: shorten it, or set model\.rope_scaling"):
        run(started(dataset, tmp_path / "run", start, **longer))
    scaling = {"rope_type": "yarn", "factor": 2.0}
    settings = started(dataset, tmp_path / "run", start, model__rope_scaling=scaling, **longer)
    run(settings)
    path = str(written(tmp_path / "run.yaml", settings))
    assert main(["export", path, "--to", str(tmp_path / "model")]) == 0
    found = read_config(str(tmp_path / "model"))
    assert found.max_positions == 64
    assert found.rope_scaling == {**scaling, "original_max_position_embeddings": 32}


def test_a_phase_with_a_longer_sequence_can_be_added_to_a_run(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path))
    phases = [{"batch": 22, "sequence_length": 64, "global_batch": 4}]
    assert len(run(config(dataset, tmp_path, data__phases=phases, schedule__steps=26))) == 26
    assert events(tmp_path, "resume")[-1]["step"] == 20


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_before_a_step(
    dataset: MadeDataset, tmp_path: Path, start: Path, value: float
) -> None:
    model = Transformer(SHAPE)
    model.init_weights(11)
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight[3, 5] = value
    shutil.rmtree(start)
    export(model.state_dict(), SHAPE, Words(tokenizer(), "<|endoftext|>", 0), str(start), torch.float32)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight has values that are not finite"):
        run(started(dataset, tmp_path / "run", start))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("words", "dtype"), [([], "bfloat16"), (["--dtype", "float32"], "float32")])
def test_the_dtype_of_an_export_does_not_follow_the_machine(
    dataset: MadeDataset, tmp_path: Path, words: list[str], dtype: str
) -> None:
    settings = config(dataset, tmp_path / "run", schedule__steps=2, schedule__warmup_steps=1)
    run(settings)
    path = str(written(tmp_path / "run.yaml", settings))
    assert main(["export", path, "--to", str(tmp_path / "model"), *words]) == 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())["torch_dtype"] == dtype
