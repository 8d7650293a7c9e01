"""The `gristmill` command. Exit codes: 0 done, 1 the data or a check failed, 2 wrong usage or recipe."""

import argparse
import contextlib
import difflib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.interrupt import interrupt_quietly
from pipeline.runtime.quiet import import_beam, quiet_beam

if TYPE_CHECKING:
    from schemas.recipe import Recipe

__all__ = ["main"]

# Imports of Beam, numba and the like stand inside the commands, so that `--help` and a mistyped recipe answer at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and prints a user's mistake as one message without a traceback."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    _check_rest(parser, options, rest)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    quiet_beam()
    if arguments is None:
        interrupt_quietly()
    try:
        return int(options.command(options, rest) or 0)
    except KeyboardInterrupt:
        print("gristmill: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from pipeline.runtime.errors import user_error

        message, code = user_error(error)
        if message is None:
            raise
        print(f"gristmill: {message}", file=sys.stderr)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gristmill",
        description="Raw web crawls in, training-ready token shards out.",
        epilog="Any further option of `run` goes to Beam, as in --runner=FlinkRunner. "
        "A model is trained on a dataset by `gristmill train CONFIG`: see `gristmill train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gristmill {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _recipe_command(commands, "run", _run, "make the dataset, or bring it up to date with its recipe")
    run.add_argument("--no-report", action="store_true", help="do not write report.html")
    init = _command(commands, "init", _init, "write a recipe for a crawl of your own")
    init.add_argument("crawl", metavar="CRAWL", help="the folder or bucket prefix that holds the crawl's files")
    init.add_argument("--to", metavar="FILE", default="recipe.yaml", help="where the recipe goes (default %(default)s)")
    plan = _recipe_command(commands, "plan", _plan, "what would run and what is already done; runs nothing")
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    decide = _recipe_command(commands, "decide", _decide, "re-decide from stored measures; packs nothing")
    decide.add_argument("--json", action="store_true", help="print one JSON object")

    explain = _dataset_command(commands, "explain", _explain, "where one document came from and what became of it")
    explain.add_argument("document", metavar="URL|ID", help="a URL, a doc_id (32 hex digits) or a record id")
    shown = explain.add_mutually_exclusive_group()
    shown.add_argument("--text", action="store_true", help="print the whole final text and nothing else")
    shown.add_argument("--page", action="store_true", help="print the page as the crawl has it and nothing else")
    report = _dataset_command(commands, "report", _report, "write DATASET/report.html again")
    report.add_argument("--to", metavar="FILE", help="write to this file in place of DATASET/report.html")
    verify = _dataset_command(commands, "verify", _verify, "check every digest, schema and the conservation law")
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    files = _dataset_command(
        commands,
        "files",
        _files,
        "the files of a generation, one a line",
        "A file keeps the name of the generation that wrote it; later ones list it again while nothing in it changes.",
    )
    files.add_argument("kind", choices=["shards", "ledger", "index"])
    files.add_argument("--split", choices=["train", "validation"], help="of the shards, only those of this split")

    diff = _command(
        commands,
        "diff",
        _diff,
        "what differs between two datasets or two generations: recipe, funnel, documents",
    )
    diff.add_argument("a", metavar="A", help="a dataset's folder or prefix; DATASET@N is its generation N")
    diff.add_argument("b", metavar="B", help="another, or another generation: gristmill diff out@1 out@2")

    signals = _command(commands, "signals", _signals, "every signal and rule, with meaning, view, source and threshold")
    signals.add_argument("recipe", nargs="?", metavar="RECIPE", help="those of its modules and scores too")
    signals.add_argument("--json", action="store_true", help="print one JSON object")

    tokenizer = commands.add_parser(
        "tokenizer", help="train or inspect a tokenizer", allow_abbrev=False
    ).add_subparsers(metavar="WHAT", required=True)
    train = _recipe_command(tokenizer, "train", _tokenizer_train, "train the recipe's tokenizer on its kept documents")
    train.add_argument("--to", metavar="FILE", required=True, help="where tokenizer.json goes")
    inspect = _command(tokenizer, "inspect", _tokenizer_inspect, "what a tokenizer does")
    inspect.add_argument("file", metavar="TOKENIZER_JSON|DATASET")
    inspect.add_argument("text", nargs="?", help="a text to encode")
    return parser


def _command(commands, name: str, command: Callable, help_line: str, more: str = "") -> argparse.ArgumentParser:  # type: ignore[no-untyped-def, type-arg]
    """A command whose options are written in full: `--out` must not be taken for `--output`."""
    description = f"{help_line[0].upper()}{help_line[1:]}. {more}".strip()
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_line, description=description, allow_abbrev=False
    )
    parser.set_defaults(command=command)
    return parser


def _recipe_command(commands, name: str, command: Callable, help_line: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def, type-arg]
    parser = _command(commands, name, command, help_line)
    shipped = ", ".join(sorted(_shipped_recipes()))
    parser.add_argument("recipe", metavar="RECIPE", help=f"a YAML file, or the name of a shipped recipe: {shipped}")
    parser.add_argument("--output", metavar="URI", help="the dataset's folder or bucket prefix")
    parser.add_argument("--work", metavar="URI", help="folder of parts and decisions (default: OUTPUT/work)")
    parser.add_argument("--set", metavar="KEY.PATH=VALUE", action="append", default=[], help="change the recipe")
    parser.add_argument("--workers", type=int, metavar="N", help="local processes (default: one a core)")
    parser.add_argument(
        "--memory",
        type=_size,
        default=4 << 30,
        metavar="BYTES",
        help="memory that shuffles may take on this machine (default 4G)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(takes_beam_options=True)
    return parser


def _dataset_command(  # type: ignore[no-untyped-def]
    commands,
    name: str,
    command: Callable,
    help_line: str,
    more: str = "",  # type: ignore[type-arg]
) -> argparse.ArgumentParser:
    parser = _command(commands, name, command, help_line, more)
    parser.add_argument("dataset", metavar="DATASET", help="a dataset's folder or bucket prefix")
    parser.add_argument("--generation", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--work", metavar="URI", help="folder of parts and decisions (default: DATASET/work)")
    return parser


def _check_rest(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]) -> None:
    """End with a usage error where an option is unknown or is the beginning of one of ours; the rest is Beam's."""
    ours = {f"--{name.replace('_', '-')}" for name in vars(options)}
    for word in rest:
        name = word.partition("=")[0]
        full = sorted(option for option in ours if option.startswith(name)) if name.startswith("--") else []
        if full:
            parser.error(f"{name}: write the option in full: {' or '.join(full)}")
    if rest and not getattr(options, "takes_beam_options", False):
        near = difflib.get_close_matches(rest[0], ours, n=1)
        parser.error(f"unknown option {' '.join(rest)}" + (f"; did you mean {near[0]}?" if near else ""))


def _size(text: str) -> int:
    """`4G`, `512M` or plain bytes."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:].upper())
    try:
        return int(float(text[:-1]) * factor) if factor else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write bytes, or 512M, or 4G") from None


@contextlib.contextmanager
def _job(  # type: ignore[type-arg]
    options: argparse.Namespace, beam_options: list[str], dry: bool = False, reads_only: bool = False
) -> Iterator:
    """Yield the job that the command line describes; holds the lock on its output unless `dry` or `reads_only`."""
    from pipeline.ingest.work_cleanup import swept_work
    from pipeline.job import Job
    from pipeline.runtime.cluster_jobs import cancel_recorded_job
    from pipeline.runtime.options import runner
    from schemas import storage
    from schemas.lock import writer_lock
    from schemas.recipe import RecipeError
    from schemas.recipe_file import load_recipe

    recipe = load_recipe(_recipe_path(options.recipe), options.set, _shipped_recipes())
    output = options.output or recipe.output
    if not output:
        raise RecipeError(f"{options.recipe}: no output: give --output URI or set `output:` in the recipe")
    work = options.work or recipe.work or storage.join(output, "work")
    storage.check_output(output)
    storage.check_output(work)
    stream = None if options.quiet else sys.stderr
    with tempfile.TemporaryDirectory(prefix="gristmill-") as progress, contextlib.ExitStack() as stack:
        if reads_only:
            pass  # a dataset on a read-only disk can be planned for
        elif not dry:
            stack.enter_context(writer_lock(output))
            if cancelled := cancel_recorded_job(work):
                print(cancelled, file=sys.stderr)
        else:
            stack.enter_context(swept_work(work, output, dry=True))
        new_pipeline = runner(beam_options, workers=options.workers, work=work)
        with _hint_of_shipped(options, recipe):
            yield Job(recipe, output, work, new_pipeline, options.memory, stream, progress)


@contextlib.contextmanager
def _hint_of_shipped(options: argparse.Namespace, recipe: "Recipe") -> Iterator[None]:
    """Add to a fault of the sources of a shipped recipe how to say where the crawl lies."""
    from schemas.recipe import RecipeError

    try:
        yield
    except ValueError as error:
        shipped = not os.path.exists(options.recipe) and options.recipe in _shipped_recipes()
        if not shipped or not str(error).startswith("source"):
            raise
        places = " ".join(f"--set sources.{name}.root=FOLDER" for name in recipe.sources)
        raise RecipeError(f"{error}; {options.recipe} is a shipped recipe: give {places} for your crawl") from None


def _shipped_recipes() -> dict[str, Path]:
    """The recipes of this package by their bare names."""
    return {path.stem: path for path in (Path(__file__).parent / "recipes").glob("*.yaml")}


def _recipe_path(name: str) -> str:
    """A shipped recipe by its bare name, else the path as given. Raises RecipeError where there is neither."""
    from schemas.recipe import RecipeError

    shipped = _shipped_recipes()
    if os.path.exists(name):
        return name
    if name in shipped:
        return str(shipped[name])
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped: {', '.join(sorted(shipped))}"
    raise RecipeError(f"{name}: no such file, and no shipped recipe; {hint}")


def _run(options: argparse.Namespace, beam_options: list[str]) -> None:
    import_beam(beam_options)
    from pipeline.curate import curate
    from pipeline.report.report import write_report
    from pipeline.select.decision.funnel import funnel_lines, load_funnel
    from pipeline.select.files import decision_root

    with _job(options, beam_options) as job:
        manifest = curate(job)
        # The decision has the rules in the order of testing; the manifest, sorted, does when the work folder is gone.
        funnel = load_funnel(decision_root(job.work, manifest.decision)) or manifest.funnel
        print("\n".join(funnel_lines(funnel)))
        if not options.no_report:
            job.say(f"report  {write_report(job.output, job.work)}")
        print(f"dataset {job.output}  generation {manifest.generation}")
        print(f"digest  {manifest.digests.generation}")
        print(f"order   {manifest.digests.order}")


def _plan(options: argparse.Namespace, beam_options: list[str]) -> None:
    import_beam(beam_options)
    from pipeline.curate import measure_line, plan
    from pipeline.plan_summary import plan_lines, plan_summary, plan_warnings
    from pipeline.runtime.cores import cores

    with _job(options, beam_options, reads_only=True) as job:
        planned = plan(job)
        generation = planned.previous.manifest.generation if planned.previous else None
        read = planned.done | set(planned.unmeasured)
        warnings = plan_warnings(job.recipe, planned.tasks, read, options.workers or cores())
        summary = plan_summary(job.output, planned.tasks, read, generation, warnings)
        summary["measure"] = [
            {"groups": each.groups, "text_bytes": each.text_bytes} for each in planned.unmeasured.values()
        ]
        print(json.dumps(summary, indent=1) if options.json else "\n".join(plan_lines(summary)))
        if planned.unmeasured and not options.json:
            print(f"to measure: {measure_line(planned)}")


def _decide(options: argparse.Namespace, beam_options: list[str]) -> None:
    import_beam(beam_options)
    from pipeline.compatibility import recorded_verdicts
    from pipeline.curate import decide, measure, plan
    from pipeline.report.decisions import decision_diff
    from pipeline.select.decision.funnel import funnel_lines

    with _job(options, beam_options, dry=True) as job:
        planned = plan(job)
        measured = measure(job, planned)
        decided = decide(job, measured, planned.previous)
        before = recorded_verdicts(job.work, measured.parts, planned.previous) if planned.previous else None
        changes = decision_diff(before, decided.verdicts, measured.parts) if before else None
        if options.json:
            print(
                json.dumps(
                    {
                        "funnel": decided.funnel.to_dict(),
                        "changes": changes and changes.to_dict(),
                        "seconds": decided.seconds,
                    },
                    indent=1,
                )
            )
        else:
            print("\n".join([*funnel_lines(decided.funnel), *(changes.lines() if changes else [])]))
            job.say(f"decided in {decided.seconds:.1f} s; nothing was packed")


def _explain(options: argparse.Namespace, _: list[str]) -> None:
    if options.text or options.page:
        from pipeline.show_document import show_page, show_text

        show = show_text if options.text else show_page
        sys.stdout.flush()
        sys.stdout.buffer.write(show(options.dataset, options.work, options.document, options.generation))
        return
    from pipeline.explain import explain

    print(explain(options.dataset, options.work, options.document, options.generation))


def _init(options: argparse.Namespace, _: list[str]) -> None:
    from pipeline.init_recipe import init_recipe

    print(init_recipe(options.crawl, options.to))


def _report(options: argparse.Namespace, _: list[str]) -> None:
    from pipeline.report.report import write_report

    print(write_report(options.dataset, options.work, options.generation, options.to))


def _verify(options: argparse.Namespace, _: list[str]) -> int:
    from pipeline.pack.verify.verify import verify, verify_lines

    result = verify(options.dataset, options.generation)
    print(json.dumps(result, indent=1, sort_keys=True) if options.json else "\n".join(verify_lines(result)))
    return 1 if result["faults"] else 0


def _files(options: argparse.Namespace, _: list[str]) -> None:
    from schemas.dataset import open_dataset

    for path in open_dataset(options.dataset, options.generation).files(options.kind, options.split):
        print(path)


def _diff(options: argparse.Namespace, _: list[str]) -> int:
    from pipeline.diff import diff

    same, lines = diff(options.a, options.b)
    print("\n".join(lines))
    return 0 if same else 1


def _signals(options: argparse.Namespace, _: list[str]) -> None:
    from pipeline.measure.registry import load_registry
    from pipeline.signals import signal_lines, signal_list
    from schemas.recipe import Recipe
    from schemas.recipe_file import load_recipe

    if options.recipe:
        registry = load_registry(load_recipe(_recipe_path(options.recipe), (), _shipped_recipes()))
    else:
        registry = load_registry(Recipe.model_validate({"sources": {"any": {"root": "."}}}), offered=True)
    print(json.dumps(signal_list(registry), indent=1) if options.json else "\n".join(signal_lines(registry)))


def _tokenizer_train(options: argparse.Namespace, beam_options: list[str]) -> None:
    import_beam(beam_options)
    from pipeline.curate import decide, measure, plan
    from pipeline.pack.tokenize.tokenizer import train_from_parts

    with _job(options, beam_options, dry=True) as job:
        planned = plan(job)
        measured = measure(job, planned)
        decided = decide(job, measured, planned.previous)
        print(train_from_parts(measured.parts, decided.verdicts, job.recipe, options.to))


def _tokenizer_inspect(options: argparse.Namespace, _: list[str]) -> None:
    from pipeline.pack.tokenize.tokenizer import inspect

    print(inspect(options.file, options.text))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gristmill")
    except PackageNotFoundError:
        return "from a checkout"


if __name__ == "__main__":
    sys.exit(main())
