"""Where the pipelines run: in this process, in several, on Flink, on Dataflow, on any portable runner.

Beam's own options choose; what this module adds are defaults that work without a download, and one clear message
where Beam would fail late. Code in stages knows no runner.
"""

import argparse
import difflib
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, _BeamArgumentParser
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.runtime.cluster_jobs import RecordedPipeline
from pipeline.runtime.cores import cores
from schemas import storage
from schemas.text_format import plural

__all__ = ["flink_job_server_jar", "runner"]

ROOT = Path(__file__).resolve().parents[2]
# Worker processes take some seconds to start, which a job of less than this does not earn back.
SMALL_BYTES = 64 << 20
MOST_A_CORE = 16  # more processes would only fill the memory
FLINK_VERSION = "1.19"
OWN_OPTIONS = ("--output", "--work", "--workers", "--memory")  # of `gristmill run`, for a typing error's hint
# Names of runners that take options which only their job server knows.
PORTABLE = ("FlinkRunner", "PortableRunner", "PrismRunner")
LOCAL = ("FnApiRunner", "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner")


def runner(
    beam_options: Sequence[str] = (), workers: int | None = None, work: str | None = None
) -> Callable[[int], beam.Pipeline]:
    """A factory of pipelines that run where Beam's options say; without any, on this machine.

    It is called with the bytes that the pipeline has to go through. `workers`: local processes, or for Flink its
    parallelism; None: one a core, and local jobs below SMALL_BYTES in this process. `work` is the folder that the
    workers share, checked against runners whose workers could not see it.
    Raises ValueError for an unknown option or an unusable runner, before anything runs.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}: give at least 1")
    given, unknown = _parser().parse_known_args(list(beam_options))
    name = _runner_name(given.runner)
    if unknown and name not in PORTABLE:
        raise ValueError(_unknown_option(unknown[0]))
    flags = list(beam_options)
    if given.save_main_session is None:
        # All our code lies in modules that workers import.
        flags.append("--no_save_main_session")
    if name == "FlinkRunner":
        flags += _flink_flags(given, workers)
    elif name == "PortableRunner":
        flags += _portable_flags(given)
    elif name == "PrismRunner" and not given.prism_location:
        raise ValueError("--runner=PrismRunner: give --prism_location=.cache/bin/prism (`make tools` builds it)")
    elif name == "DataflowRunner":
        _check_dataflow(given, work)
    processes = _local_processes(given, workers) if name in LOCAL else None
    _let_workers_import()

    def new_pipeline(num_bytes: int = 0) -> beam.Pipeline:
        # Options and runner are made anew: runners write into both.
        options = PipelineOptions(flags)
        if name not in LOCAL:
            return RecordedPipeline(create_runner(name), options, work)
        wanted = processes or (1 if num_bytes < SMALL_BYTES else cores())
        return beam.Pipeline(_local_runner(options, wanted), options)

    return new_pipeline


def flink_job_server_jar() -> Path:
    """Where `make tools` puts the jar that starts Flink in one Java process; GRISTMILL_FLINK_JAR names another."""
    return Path(os.environ.get("GRISTMILL_FLINK_JAR") or ROOT / ".cache" / "flink" / "job-server.jar")


class _Parser(_BeamArgumentParser):
    """Beam's options, with a wrong value as a message in place of three screens of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"Beam options: {message}")


def _parser() -> argparse.ArgumentParser:
    """Every option of Beam's own; what was not given is None, so that a default is known from a preference."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    for section in dict.fromkeys(PipelineOptions.__subclasses__()):
        section._add_argparse_args(parser)
    parser.set_defaults(
        direct_num_workers=None,
        direct_running_mode=None,
        flink_version=None,
        parallelism=None,
        environment_type=None,
    )
    return parser


def _unknown_option(flag: str) -> str:
    """Beam drops an option that it does not know; a typing error must not change where a job runs."""
    name = flag.partition("=")[0]
    near = difflib.get_close_matches(name, [*OWN_OPTIONS, *_parser()._option_string_actions], n=1)
    return f"{name}: neither Gristmill nor Beam knows it" + (f"; did you mean {near[0]}?" if near else "")


def _runner_name(given: str | None) -> str:
    """The runner's class name as Beam spells it; short and lower-case forms are taken, as Beam takes them."""
    if given is None:
        return "FnApiRunner"
    known = {name.lower(): name for name in (*PORTABLE, *LOCAL, "DataflowRunner")}
    name = known.get(given.lower()) or known.get(given.lower() + "runner")
    if name is None and "." not in given:
        near = difflib.get_close_matches(given, known.values(), n=1, cutoff=0.3)
        raise ValueError(f"--runner={given}: no such runner; did you mean {near[0] if near else 'FnApiRunner'}?")
    return name or given


def _local_processes(given: argparse.Namespace, workers: int | None) -> int | None:
    """How many local processes are demanded; None: by the size of the job."""
    number, mode = given.direct_num_workers, given.direct_running_mode
    if workers is not None and (number is not None or mode is not None):
        raise ValueError(f"--workers {workers} and --direct_* both say how many processes: give one of them")
    most = MOST_A_CORE * cores()
    if workers is not None and workers > most:
        raise ValueError(f"--workers {workers}: this machine has {plural(cores(), 'core')}, give at most {most}")
    if mode in ("in_memory", "multi_threading"):
        return 1
    return cores() if number == 0 else number or workers


def _local_runner(options: PipelineOptions, processes: int) -> PipelineRunner:
    """Beam's local runner, named as a class: its DirectRunner would first try to download another one's binary."""
    if processes == 1:
        return FnApiRunner()
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = processes
    # No mode: each would put Beam's own idea of a worker in place of ours, which quotes its path and is silent.
    direct.direct_running_mode = None
    # Until it has set its own way of ending, a Ctrl-C finds the interpreter in the middle of its imports.
    command = f"trap '' INT; exec {shlex.quote(sys.executable)} -m pipeline.runtime.worker {os.getpid()}"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _flink_flags(given: argparse.Namespace, workers: int | None) -> list[str]:
    """Flink in one Java process of its own, or the cluster of --flink_master; our jar unless another is named."""
    added = [] if given.flink_version else [f"--flink_version={FLINK_VERSION}"]
    if not given.flink_job_server_jar:
        jar = flink_job_server_jar()
        if not jar.exists():
            raise ValueError(
                f"--runner=FlinkRunner: {jar} is not there: get it with `python deploy/flink/jars.py` in a checkout "
                "(needs Java and Maven), or name a jar with --flink_job_server_jar or GRISTMILL_FLINK_JAR"
            )
        added.append(f"--flink_job_server_jar={jar}")
    java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
    if not shutil.which(java):
        raise ValueError(f"--runner=FlinkRunner: {java} is not there: install Java 11 or 17, or mend JAVA_HOME")
    if not given.environment_type:
        added.append("--environment_type=LOOPBACK")
    if given.parallelism is None:
        added.append(f"--parallelism={workers or cores()}")
    elif workers is not None:
        raise ValueError(f"--workers {workers} and --parallelism both say how many: give one of them")
    return added


def _portable_flags(given: argparse.Namespace) -> list[str]:
    """A job server that is there; one on this machine gets its workers here, in place of Beam's default, Docker."""
    if not given.job_endpoint:
        raise ValueError("--runner=PortableRunner: give --job_endpoint=HOST:PORT of a job server")
    host, _, port = given.job_endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ValueError(f"--job_endpoint={given.job_endpoint}: no job server answers there ({error})") from None
    here = host in ("localhost", "127.0.0.1", "[::1]")
    return ["--environment_type=LOOPBACK"] if here and not given.environment_type else []


def _check_dataflow(given: argparse.Namespace, work: str | None) -> None:
    """What Dataflow would refuse after minutes, or never say."""
    try:
        from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
    except ImportError:
        raise ValueError("--runner=DataflowRunner needs Google's clients: pip install 'gristmill[gcp]'") from None
    missing = [name for name in ("project", "region", "temp_location") if not getattr(given, name)]
    if missing:
        raise ValueError(f"--runner=DataflowRunner: give {', '.join('--' + name for name in missing)} too")
    if not (given.sdk_container_image or given.setup_file or given.extra_packages):
        raise ValueError(
            "--runner=DataflowRunner: its workers lack this package: give --sdk_container_image=IMAGE "
            "(deploy/worker.Dockerfile) or --extra_package=dist/gristmill-VERSION-py3-none-any.whl"
        )
    if work is not None and storage.local_path(work) is not None:
        raise ValueError(f"--runner=DataflowRunner: its workers cannot see the folder {work}: give --work gs://...")


def _let_workers_import() -> None:
    """Worker processes import our modules by name, wherever the command was started."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths and ROOT.name != "site-packages":
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, paths)])
