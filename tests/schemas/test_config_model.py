"""schemas.config_model: which YAML is read as what, and what is refused."""

from pathlib import Path

import pytest

from schemas.config_model import ConfigError, Section, load_model


class Part(Section):
    steps: int = 0
    rate: float = 0.0
    flag: bool = False
    words: tuple[str, ...] = ()
    any_number: int | str = 0


class Whole(Section):
    a: Part = Part()
    b: Part = Part()


def read(tmp_path: Path, text: str = "{}", *overrides: str) -> Whole:
    (tmp_path / "c.yaml").write_text(text)
    return load_model(str(tmp_path / "c.yaml"), Whole, overrides)


@pytest.mark.parametrize(
    ("value", "steps"), [("1e3", 1000), ("1000", 1000), ("1E+3", 1000), ("010", 10), ("0x10", 16), ("0o10", 8)]
)
def test_whole_numbers_are_read_as_a_person_reads_them(tmp_path: Path, value: str, steps: int) -> None:
    assert read(tmp_path, "{}", f"a.steps={value}").a.steps == steps
    assert read(tmp_path, f"a: {{steps: {value}}}").a.steps == steps


@pytest.mark.parametrize("value", ["yes", "on", "true", "no", "off", "false", "1:30", "1_000_", "2024-01-01"])
def test_what_is_not_a_number_is_refused_for_one(tmp_path: Path, value: str) -> None:
    for key in ("steps", "rate"):
        with pytest.raises(ConfigError, match=rf"{key}.*(whole number|a number)"):
            read(tmp_path, "{}", f"a.{key}={value}")


def test_a_boolean_is_no_number_in_a_choice_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="any_number=true"):
        read(tmp_path, "a: {any_number: true}")


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("yes", True), ("no", False), ("False", False)])
def test_booleans_are_read_where_they_are_expected(tmp_path: Path, value: str, flag: bool) -> None:
    assert read(tmp_path, "{}", f"a.flag={value}").a.flag is flag


def test_the_code_of_norway_is_a_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a: {words: [no, on, y, 2024-01-01]}").a.words == ("no", "on", "y", "2024-01-01")


def test_anchors_are_merged_and_own_keys_go_before_theirs(tmp_path: Path) -> None:
    found = read(tmp_path, "a: &same {steps: 3, rate: 0.5}\nb:\n  <<: *same\n  steps: 4\n")
    assert (found.b.steps, found.b.rate) == (4, 0.5)
    with pytest.raises(ConfigError, match="'steps' is given twice"):
        read(tmp_path, "a: &same {steps: 3}\nb:\n  <<: *same\n  steps: 4\n  steps: 5\n")
