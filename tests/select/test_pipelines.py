"""The pipelines as graphs: what is grouped has a type, and the same steps make one pipeline or several."""

import typing
from dataclasses import replace
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import PipelineVisitor
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, PipelineState
from apache_beam.typehints.typehints import AnyTypeConstraint, TupleConstraint

from pipeline.select.context import Decision
from pipeline.select.near.bands import Bands
from pipeline.select.select import _round_bytes
from pipeline.select.select import _run as run
from tests.made_parts import make_recipe


class Done:
    state = PipelineState.DONE

    def wait_until_finish(self):
        return self.state


class Recorder(PipelineRunner):
    """Keeps pipelines and runs none."""

    def __init__(self):
        super().__init__()
        self.pipelines = []

    def run_pipeline(self, pipeline, options):
        self.pipelines.append(pipeline)
        return Done()


class Groupings(PipelineVisitor):
    """Input types of all GroupByKeys."""

    def __init__(self):
        self.types = {}

    def visit_transform(self, node):
        if isinstance(node.transform, beam.GroupByKey):
            self.types[node.full_label] = node.inputs[0].element_type

    def enter_composite_transform(self, node):
        self.visit_transform(node)


def pipelines_of(**changes):
    decision = Decision(
        rules=(),
        failed=(),
        root="/nowhere",
        recipe_json=make_recipe(near={"verify": "exact"}).model_dump_json(),
        rows=3000,
        bands=Bands(4, 4),
        drop_at=0.8,
        split_at=0.8,
    )
    recorder = Recorder()
    run(replace(decision, **changes), [0, 1], lambda: beam.Pipeline(recorder))
    return recorder.pipelines


def has_any(kind):
    if isinstance(kind, TupleConstraint):
        return any(map(has_any, kind.tuple_types))
    return isinstance(kind, AnyTypeConstraint)


@pytest.mark.parametrize("changes", [{}, {"bucket_limit": 1000}, {"round_bytes": 200_000, "partition_bytes": 10_000}])
def test_nothing_of_an_unknown_type_is_grouped_and_keys_are_numbers(changes):
    for pipeline in pipelines_of(**changes):
        groupings = Groupings()
        pipeline.visit(groupings)
        assert groupings.types
        for label, kind in groupings.types.items():
            assert not has_any(kind), f"{label}: {kind}"
            key, value = kind.tuple_types
            assert value in (bytes, str) or "Reshuffle" in label or "Spread" in label, f"{label}: {kind}"
            assert key is int or set(key.tuple_types) == {int} or "Spread" in label, f"{label}: {kind}"


def test_the_walk_would_find_a_group_without_a_type():
    pipeline = beam.Pipeline(Recorder())
    untyped = beam.Map(lambda n: (n, n)).with_output_types(typing.Any)
    _ = pipeline | beam.Create([1]) | untyped | beam.GroupByKey()
    groupings = Groupings()
    pipeline.visit(groupings)
    assert any(map(has_any, groupings.types.values()))


def test_without_a_limit_all_is_one_pipeline():
    assert len(pipelines_of()) == 1
    assert len(pipelines_of(round_bytes=10**9)) == 1


def test_with_a_limit_every_round_is_a_pipeline_and_none_shuffles_more():
    # 3,000 documents: 48 bytes each by record, 24 by text, 4 x 16 by band (found once for members, once for pairs).
    assert len(pipelines_of(round_bytes=100_000, partition_bytes=10_000)) == 2 + 1 + 2 + 2 + 1


class DataflowRunner(Recorder):
    """By its name."""


@pytest.mark.parametrize(
    ("runner", "flags", "expected"),
    [
        (FnApiRunner, [], 125 << 20),  # an eighth of the memory allowed
        (Recorder, [], 256 << 20),
        (Recorder, ["--parallelism=8"], 2 << 30),
        (DataflowRunner, ["--parallelism=8"], None),
    ],
)
def test_a_round_is_what_the_runner_can_hold(runner, flags, expected):
    pipeline = SimpleNamespace(runner=runner(), options=PipelineOptions(flags))
    assert _round_bytes(pipeline, 1000 << 20) == expected


@pytest.mark.parametrize("pipeline", pipelines_of(bucket_limit=1000))
def test_every_step_has_a_name_in_words(pipeline):
    labels = []

    class Names(PipelineVisitor):
        def visit_transform(self, node):
            labels.append(node.full_label)

    pipeline.visit(Names())
    assert not [label for label in labels if ".py" in label and "core.py" not in label]
