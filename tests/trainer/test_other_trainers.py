"""The lines of trainer/README.md, run: other trainers see the stream's batches, each once, each rank its own part."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from tests.made_dataset import MadeDataset, made
from tests.servers import ROOT, free_port
from tests.trainer.other_trainers import SETTINGS, lines_of, read_by_hugging_face, tiny_llama
from trainer.data.token_stream import TokenBatch, TokenStream


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return made(tmp_path_factory.mktemp("others"), {"web": [1000, 1200, 900], "wiki": [800]})


def batches(data: MadeDataset, count: int, start: int = 0, rank: int = 0, world: int = 1) -> list[TokenBatch]:
    stream = TokenStream(data.uri, rank=rank, world=world, start_batch=start, **SETTINGS)
    found = [batch for batch, _ in zip(stream, range(count), strict=False)]
    stream.close()
    return found


def as_lists(found: list[TokenBatch]) -> list[Any]:
    return [[batch.tokens_BT.tolist(), batch.targets_BT.tolist()] for batch in found]


def test_torchtitans_loop_is_fed_and_resumes_with_another_number_of_ranks(data: MadeDataset) -> None:
    loader = lines_of("torchtitan")["TokenLoader"]
    seen = []
    first = loader(TokenStream(data.uri, rank=1, world=2, **SETTINGS))
    iterator = iter(first)
    for _ in range(3):
        inputs, labels = next(iterator)
        seen.append([inputs["input"].tolist(), labels.tolist()])
    assert seen == as_lists(batches(data, 3, rank=1, world=2))
    second = loader(TokenStream(data.uri, rank=2, world=3, **SETTINGS))
    second.load_state_dict(first.state_dict())
    inputs, labels = next(iter(second))
    assert [[inputs["input"].tolist(), labels.tolist()]] == as_lists(batches(data, 1, start=3, rank=2, world=3))
    first.stream.close()
    second.stream.close()


def test_hugging_faces_trainer_sees_every_batch_and_every_target(data: MadeDataset, tmp_path: Path) -> None:
    seen = read_by_hugging_face(data.uri, str(tmp_path), 0, 1, 4)
    assert seen == as_lists(batches(data, 4))


def test_hugging_faces_loss_is_that_of_the_shifted_targets(data: MadeDataset) -> None:
    batch = batches(data, 1)[0]
    model = tiny_llama()
    found = model(input_ids=batch.tokens_BT, labels=batch.targets_BT, shift_labels=batch.targets_BT)
    expected = torch.nn.functional.cross_entropy(found.logits.flatten(0, 1), batch.targets_BT.flatten())
    torch.testing.assert_close(found.loss, expected)


@pytest.mark.slow
def test_accelerate_deals_nothing_out_a_second_time(data: MadeDataset, tmp_path: Path) -> None:
    _run_two_ranks(data, tmp_path)
    seen, naive = (
        [json.loads((tmp_path / f"{kind}-{rank}.json").read_text()) for rank in range(2)] for kind in ("lines", "naive")
    )
    for rank in range(2):
        assert seen[rank] == as_lists(batches(data, 3, rank=rank, world=2))
    # What the lines save one from: through accelerate, a rank sees every second batch of its own, or another's.
    assert [inputs for inputs, _ in naive[1]] != [inputs for inputs, _ in seen[1]]


def _run_two_ranks(data: MadeDataset, folder: Path) -> None:
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.trainer.other_trainers", data.uri, str(folder)]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(180) for process in ranks] == [0, 0]


def test_lightning_trains_each_batch_once_across_a_resume(data: MadeDataset, tmp_path: Path) -> None:
    base = lines_of("Lightning", lightning=lightning, TokenStream=TokenStream)["StreamModule"]
    seen: list[TokenBatch] = []

    class Module(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.data, self.next_batch = {"data": data.uri, **SETTINGS}, 0
            self.model = tiny_llama()

        def training_step(self, batch: TokenBatch, _: int) -> Any:
            seen.append(batch)
            return self.model(input_ids=batch.tokens_BT, labels=batch.targets_BT, shift_labels=batch.targets_BT).loss

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["next_batch"] = self.next_batch

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.next_batch = checkpoint["next_batch"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    def trainer(steps: int) -> Any:
        return lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(tmp_path),
        )

    first = trainer(3)
    first.fit(Module())
    first.save_checkpoint(tmp_path / "three.ckpt")
    trainer(5).fit(Module(), ckpt_path=tmp_path / "three.ckpt", weights_only=False)
    assert [batch.batch for batch in seen] == [0, 1, 2, 3, 4]
    assert as_lists(seen) == as_lists(batches(data, 5))
    assert not [thread for thread in threading.enumerate() if thread.name == "token-stream"]
