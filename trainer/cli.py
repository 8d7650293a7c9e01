"""The trainer's command line. Exit codes: 0 done, 1 the data or a run failed, 2 wrong usage or configuration.

gristmill train CONFIG [KEY=VALUE ...]                                               one process
torchrun --nproc-per-node N --no-python gristmill train CONFIG [KEY=VALUE ...]       several
gristmill train plan|documents|steps|evaluate|generate|export|report CONFIG [KEY=VALUE ...] [options]

`python -m trainer`, and `torchrun -m trainer`, take the same words.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from schemas.config_model import ConfigError
from schemas.manifest import DatasetError
from schemas.storage import StorageError
from trainer.distributed.launch import adopt_slurm, is_reporting

if TYPE_CHECKING:
    from trainer.config import Config

__all__ = ["main"]

# Torch takes seconds to import: what needs it is imported inside the commands, so that `--help` and a mistyped
# configuration answer at once.


def main(arguments: Sequence[str] | None = None, prog: str = "python -m trainer") -> int:
    """Run one command; a user's mistake is one message without a traceback."""
    options = _options(list(sys.argv[1:] if arguments is None else arguments), prog)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return int(options.command(options) or 0)
    except KeyboardInterrupt:
        print("trainer: interrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConfigError, DatasetError, StorageError, FileNotFoundError, ValueError) as error:
        if is_reporting() or getattr(error, "reported_by_every_rank", False):
            print(f"trainer: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _options(given: list[str], prog: str) -> argparse.Namespace:
    """Words that are no options change the configuration, wherever they stand; argparse itself takes them in one run.

    Of CONFIG and these, the first without a `=` is CONFIG.
    """
    parser = _parser(prog)
    if given and given[0] not in (*COMMANDS, "-h", "--help"):
        if re.fullmatch("[a-z]+", given[0]) and not os.path.exists(given[0]):
            parser.error(f"{given[0]} is neither a configuration file nor a command: {', '.join(COMMANDS)}")
        given.insert(0, "train")
    options, rest = parser.parse_known_args(given)
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}: see `{prog} {given[0]} --help`")
    options.config, *words = sorted([options.config, *rest], key=lambda word: "=" in word)
    options.changes += words
    return options


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [COMMAND] CONFIG [KEY=VALUE ...] [options]",
        description="Train a model on a dataset's shards, or query a run. Without a COMMAND it trains. Exit codes:\n"
        "0 done, 1 the data or a run failed, 2 wrong usage or configuration.",
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, prog=prog)
    for name, (function, help_line) in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, description=help_line.capitalize() + ".")
        command.add_argument("config", metavar="CONFIG", help="a YAML file; its keys: trainer/config.py")
        change = "change the configuration, as in data.sequence_length=2048; --set may be left out"
        command.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="changes", help=change)
        command.set_defaults(command=function)
        _OPTIONS.get(name, lambda _: None)(command)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, at least 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a share, above 0 and at most 1")
    return share


def _plan_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--world", type=_count, default=1, metavar="N", help="processes that will train")
    command.add_argument("--gpu", metavar="NAME", help="the device, as in 'H100 SXM'; default: the one here")
    command.add_argument("--mfu", type=_share, default=0.4, help="share of the peak that is expected (default 0.4)")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _documents_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--step", type=int, required=True)
    command.add_argument("--rank", type=int, metavar="R", help="only the rows of this rank")
    command.add_argument("--world", type=_count, metavar="N", help="ranks of the run (with --rank; default: as it ran)")
    command.add_argument("--json", action="store_true", help="print JSON lines")


def _steps_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--document", required=True, metavar="ID|URL")
    command.add_argument("--until", type=int, metavar="STEP", help="default: the steps of the run")
    command.add_argument("--json", action="store_true", help="print JSON lines")


def _checkpoint_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--step", type=int, help="of this checkpoint; default: the newest valid one")


def _export_options(command: argparse.ArgumentParser) -> None:
    _checkpoint_options(command)
    command.add_argument("--to", required=True, metavar="FOLDER")
    kinds = ["bfloat16", "float16", "float32"]
    command.add_argument("--dtype", choices=kinds, help="of the weights; default: parallel.dtype, or bfloat16")


def _generate_options(command: argparse.ArgumentParser) -> None:
    _checkpoint_options(command)
    command.add_argument("--prompt", action="append", required=True)
    command.add_argument("--tokens", type=_count, help="new tokens; default: evaluate.new_tokens")


def _train_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--step",
        type=_count,
        help="go back to this checkpoint, abandon those after it; default: the newest valid one",
    )


def _train(options: argparse.Namespace) -> int:
    adopt_slurm()
    config = _config(options)
    from trainer.train import train

    return train(config, options.step)


def _config(options: argparse.Namespace) -> "Config":
    from trainer.config import load_config

    return load_config(options.config, options.changes)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _plan(options: argparse.Namespace) -> None:
    from trainer.commands import planned
    from trainer.estimate.run_estimate import plan_lines

    summary = planned(_config(options), options.world, options.gpu, options.mfu)
    print(json.dumps(summary, indent=1)) if options.json else _print(plan_lines(summary))


def _documents(options: argparse.Namespace) -> None:
    from trainer.commands import documents_of_step

    _print(documents_of_step(_config(options), options.step, options.rank, options.world, options.json))


def _steps(options: argparse.Namespace) -> None:
    from trainer.commands import steps_of

    lines = [*steps_of(_config(options), options.document, options.until, options.json)]
    _print(lines)
    if not lines:
        print("trainer: none of the steps saw it; --until STEP looks further", file=sys.stderr)


def _evaluate(options: argparse.Namespace) -> None:
    from trainer.commands import evaluated

    _print(evaluated(_config(options), options.step))


def _generate(options: argparse.Namespace) -> None:
    from trainer.commands import generated

    _print(generated(_config(options), options.prompt, options.tokens, options.step))


def _export(options: argparse.Namespace) -> None:
    from trainer.commands import exported

    print(exported(_config(options), options.to, options.step, options.dtype))


def _report(options: argparse.Namespace) -> None:
    from trainer.report.html import write_report

    output = _config(options).output
    try:
        print(write_report(output))
    except FileNotFoundError:
        raise ValueError(f"{output}: no metrics.jsonl there: train first") from None


COMMANDS = {
    "train": (_train, "train, or go on where a run stopped"),
    "plan": (_plan, "parameters, FLOPs, memory, time and data of a run; runs nothing"),
    "documents": (_documents, "the documents behind a step"),
    "steps": (_steps, "the steps that saw a document"),
    "evaluate": (_evaluate, "validation loss, perplexity and bits per byte of a checkpoint"),
    "generate": (_generate, "text from a checkpoint"),
    "export": (_export, "a checkpoint as a Hugging Face folder"),
    "report": (_report, "(re)write the run's report.html"),
}
_OPTIONS = {
    "train": _train_options,
    "plan": _plan_options,
    "documents": _documents_options,
    "steps": _steps_options,
    "evaluate": _checkpoint_options,
    "generate": _generate_options,
    "export": _export_options,
}
