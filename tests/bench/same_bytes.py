"""One recipe, many ways to run it, one digest: prints a row a way and exits 1 when two differ.

    python tests/bench/same_bytes.py RECIPE [--ways in-process,processes-2,...] [--kills 10]

Ways: in-process, processes-2, processes-4, killed (kill -9 of the whole process group at random moments, then run
again), elsewhere (the inputs in another folder, by other globs in another order), s3 (inputs, work and dataset on a
real S3 server), flink (embedded), flink-cluster (two TaskManagers), flink-cluster-s3 (both), flink-cluster-killed
(a TaskManager and then a Python worker killed in the first job, another worker in each later one), flink-driver-killed
(the driver killed and run again while its job lives).
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "flink")]
from cluster import Cluster  # noqa: E402

from tests import servers  # noqa: E402

Way = Callable[[argparse.Namespace, Path], tuple[str, str]]
Driver = subprocess.Popen
GRISTMILL = [sys.executable, "-m", "pipeline"]


def main() -> int:
    """Run every way and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
        for way in options.ways.split(","):
            started = time.monotonic()
            rows.append((way, *WAYS[way](options, Path(folder) / way), time.monotonic() - started))
            print(f"{way:26} {rows[-1][1][:16]}  {rows[-1][2][:16]}  {rows[-1][-1]:6.1f} s", flush=True)
    same = len({row[1:3] for row in rows}) == 1
    print(f"{len(rows)} ways, {'one digest' if same else 'DIFFERENT DIGESTS'}")
    return 0 if same else 1


def run(recipe: str, output: str, *more: str, env: dict[str, str] | None = None) -> None:
    """One run to its end."""
    subprocess.run(
        [*GRISTMILL, "run", recipe, "--output", output, "--quiet", "--no-report", *more],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})},
    )  # fmt: skip


def digests(output: str, env: dict[str, str] | None = None) -> tuple[str, str]:
    """Generation and order digest of a verified dataset."""
    answer = subprocess.run(
        [*GRISTMILL, "verify", output, "--json"], check=True, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    result = json.loads(answer.stdout)
    return result["digest"], result["order"]


def local(*more: str) -> Way:
    """A run on this machine with these options."""

    def way(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
        run(options.recipe, str(folder), *more)
        return digests(str(folder))

    return way


def elsewhere(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """The same files below another root, listed one by one, backwards."""
    recipe = yaml.safe_load(Path(options.recipe).read_text())
    for name, source in recipe["sources"].items():
        root = Path(source["root"])
        copy = folder / f"moved-{name}"
        shutil.copytree(root, copy)
        names = sorted(
            {
                str(path.relative_to(root))
                for glob in source.get("inputs", ["**/*"])
                for path in root.glob(glob)
                if path.is_file()
            }
        )
        source.update(root=str(copy), inputs=names[::-1])
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    run(str(path), str(folder / "dataset"))
    return digests(str(folder / "dataset"))


def killed(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """Killed at random moments until the run gets through, `--kills` times at least."""
    rng = random.Random(options.seed)
    started = time.monotonic()
    run(options.recipe, str(folder / "whole"))
    whole = time.monotonic() - started
    survived = 0
    for _ in range(options.kills):
        target = folder / "killed"
        driver = subprocess.Popen(
            [*GRISTMILL, "run", options.recipe, "--output", str(target), "--quiet", "--no-report"],
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            driver.wait(rng.uniform(0.05, 1.0) * whole)
            survived += 1
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
        if survived:
            run(options.recipe, str(target))
            assert digests(str(target)) == digests(str(folder / "whole"))
            shutil.rmtree(target)
            survived = 0
    run(options.recipe, str(folder / "killed"))
    return digests(str(folder / "killed"))


@contextlib.contextmanager
def inputs_on_s3(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The recipe with its inputs in a bucket of a real S3 server, and the environment that reaches it."""
    recipe = yaml.safe_load(Path(options.recipe).read_text())
    (folder / "s3" / "datasets").mkdir(parents=True)
    with servers.s3_server(folder / "s3") as env:
        for name, source in recipe["sources"].items():
            shutil.copytree(source["root"], folder / "s3" / "crawls" / name)
            source["root"] = f"s3://crawls/{name}"
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        yield str(path), env


def on_s3(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """Inputs, work and dataset on `s3://`."""
    with inputs_on_s3(options, folder) as (recipe, env):
        run(recipe, "s3://datasets/demo", env=env)
        return digests("s3://datasets/demo", env=env)


def on_s3_and_cluster(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """Inputs, work and dataset on `s3://`, the work done by a Flink cluster of two TaskManagers."""
    with inputs_on_s3(options, folder) as (recipe, env):
        os.environ.update(env)  # the cluster's workers inherit it
        cluster = Cluster(folder / "cluster")
        try:
            run(recipe, "s3://datasets/demo", *cluster.start(taskmanagers=2))
        finally:
            cluster.stop()
        return digests("s3://datasets/demo")


def on_cluster(disturb: Callable[[Cluster, Driver], Driver] | None = None) -> Way:
    """A run on a Flink cluster of two TaskManagers; `disturb` does harm, and returns the driver to wait for."""

    def way(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
        folder.mkdir(parents=True)
        cluster = Cluster(folder / "cluster")
        flags = cluster.start(taskmanagers=2)
        command = [*GRISTMILL, "run", options.recipe, "--output", str(folder / "dataset"), "--quiet", "--no-report"]
        try:
            driver = start([*command, *flags])
            if disturb:
                driver = disturb(cluster, driver)
            assert driver.wait(1200) == 0, f"the driver ended with {driver.returncode}"
            print(f"  failures of each job: {list(cluster.failures().values())}", flush=True)
        finally:
            cluster.stop()
        return digests(str(folder / "dataset"))

    return way


def start(command: list[str]) -> Driver:
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def kill_taskmanager_and_workers(cluster: Cluster, driver: Driver) -> Driver:
    """In the first job a TaskManager dies, another takes its place, and a worker dies; in each later one a worker."""
    wait_until(lambda: works(cluster), driver)
    print(f"  killed {cluster.kill_taskmanager()} of 2", flush=True)
    cluster.add_taskmanager()
    wait_until(lambda: cluster.overview().get("taskmanagers", 0) >= 2 and works(cluster), driver)
    print(f"  killed worker {cluster.kill_worker()} in job 1", flush=True)
    while driver.poll() is None:
        failures = list(cluster.failures().values())
        # A worker that has just done its work is missed by nobody: then another one.
        if len(failures) > 1 and not failures[-1] and works(cluster):
            with contextlib.suppress(RuntimeError):
                print(f"  killed worker {cluster.kill_worker()} in job {len(failures)}", flush=True)
            time.sleep(1)
        time.sleep(0.05)
    return driver


def works(cluster: Cluster) -> bool:
    """Whether a Python worker has begun to work."""
    with contextlib.suppress(psutil.Error):
        return any(psutil.Process(pid).cpu_times().user > 0.05 for pid in cluster.workers()[-1:])
    return False


def kill_driver(cluster: Cluster, driver: Driver) -> Driver:
    """The driver dies, its job lives on, and another driver starts."""
    wait_until(lambda: works(cluster), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    print(f"  killed the driver, its job lives: {cluster.overview()}", flush=True)
    return start(driver.args)  # type: ignore[arg-type]


def wait_until(true: Callable[[], bool], driver: Driver, seconds: float = 120) -> None:
    """Poll until it is true, while the driver runs."""
    end = time.monotonic() + seconds
    while not true():
        assert driver.poll() is None, f"the driver ended first, with {driver.returncode}"
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.1)


WAYS = {
    "in-process": local("--workers", "1"),
    "processes-2": local("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
    "processes-4": local("--direct_num_workers=4", "--direct_running_mode=multi_processing"),
    "elsewhere": elsewhere,
    "killed": killed,
    "s3": on_s3,
    "flink": local("--runner=FlinkRunner"),
    "flink-cluster": on_cluster(),
    "flink-cluster-s3": on_s3_and_cluster,
    "flink-cluster-killed": on_cluster(kill_taskmanager_and_workers),
    "flink-driver-killed": on_cluster(kill_driver),
}

if __name__ == "__main__":
    sys.exit(main())
