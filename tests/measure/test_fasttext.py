import random
import shutil
from pathlib import Path

import fasttext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.assets import asset_path
from pipeline.measure.fasttext.model import FastTextModel
from pipeline.text.edits import text_buffers
from tests.measure.measuring import CHINESE, RUSSIAN, column

SHIPPED = asset_path("builtin:lid.176.ftz")
TEXTS = [
    *(
        "It was the best of times.\nIt was the worst of times.",
        RUSSIAN,
        CHINESE,
        "x",
        "dans le  doute, abstiens-toi\t!",
    ),
    *("hello </s> мир", "__label__en слово", "__label__xyz", "a\x00b \x0b c", "😀 ok", "der die das " * 500),
]


def mine(model: FastTextModel, texts: list[str]) -> list[tuple[float, str]]:
    best, scores = model.predict(*text_buffers(column(*texts)))
    return [(float(score), "__label__" + model.labels[label]) for label, score in zip(best, scores, strict=True)]


def theirs(library: fasttext.FastText._FastText, texts: list[str]) -> list[tuple[float, str]]:
    return [library.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")[0] for text in texts]


def test_the_shipped_model_gives_what_the_library_gives():
    library = fasttext.FastText._FastText(str(SHIPPED))
    assert mine(FastTextModel(SHIPPED), TEXTS) == theirs(library, TEXTS)


LIBRARY = fasttext.FastText._FastText(str(SHIPPED))
MODEL = FastTextModel(SHIPPED)


@settings(deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.strip(" \n\r\t\v\f\0") != ""))
def test_any_text_gets_the_librarys_label_and_probability(text: str):
    assert mine(MODEL, [text]) == theirs(LIBRARY, [text])


def test_a_text_without_a_word_has_no_label():
    best, scores = MODEL.predict(*text_buffers(column("", " \n\t\0")))
    assert (best.tolist(), scores.tolist()) == ([-1, -1], [0.0, 0.0])


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "softmax", "wordNgrams": 2, "minn": 0, "maxn": 0},
        {"loss": "softmax", "wordNgrams": 3, "minn": 2, "maxn": 5},
        {"loss": "hs", "wordNgrams": 1, "minn": 1, "maxn": 3},
    ],
)
def test_models_of_a_users_own_give_what_the_library_gives(tmp_path: Path, options: dict[str, int | str]):
    draw = random.Random(1)
    words = {label: [f"{label}{i} wörd{i % 7}" for i in range(30)] for label in ("good", "bad", "ugly")}
    lines = [f"__label__{label} {' '.join(draw.choices(words[label], k=9))}" for label in words for _ in range(40)]
    (tmp_path / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    library = fasttext.train_supervised(
        str(tmp_path / "train.txt"), dim=12, bucket=5_000, epoch=5, thread=1, verbose=0, **options
    )
    library.save_model(str(tmp_path / "model.bin"))
    texts = [*(line.partition(" ")[2] for line in lines), *TEXTS]
    assert mine(FastTextModel(tmp_path / "model.bin"), texts) == theirs(library, texts)
    if options["loss"] == "softmax":
        library.quantize(input=str(tmp_path / "train.txt"), qnorm=True, cutoff=300, retrain=False, verbose=0)
        library.save_model(str(tmp_path / "model.ftz"))
        assert mine(FastTextModel(tmp_path / "model.ftz"), texts) == theirs(library, texts)


def test_a_loss_that_is_not_known_is_refused(tmp_path: Path):
    (tmp_path / "train.txt").write_text("__label__a b c\n__label__d e f\n" * 5, encoding="utf-8")
    library = fasttext.train_supervised(str(tmp_path / "train.txt"), loss="ova", dim=4, bucket=10, thread=1, verbose=0)
    library.save_model(str(tmp_path / "model.bin"))
    with pytest.raises(ValueError, match=r"model\.bin: the model must be supervised, with loss softmax or hs"):
        FastTextModel(tmp_path / "model.bin")


@pytest.mark.parametrize("size", [0, 4, 60, 100, 10_000, 500_000, 930_000])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, size: int):
    shutil.copy(SHIPPED, tmp_path / "model.ftz")
    with (tmp_path / "model.ftz").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=r"model\.ftz: "):
        FastTextModel(tmp_path / "model.ftz")
