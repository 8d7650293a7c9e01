"""A whole Flink cluster on this machine, each part a process of its own, for trying jobs and failures.

    python deploy/flink/cluster.py start [--taskmanagers N]     prints the options for `gristmill run`
    python deploy/flink/cluster.py status | kill-taskmanager | add-taskmanager | kill-worker | stop

A JobManager, TaskManagers of one slot, Beam's job server and a pool of Python workers, on free ports of 127.0.0.1.
Needs the jars that `python deploy/flink/jars.py` fetches. Process ids, configuration and logs lie in --state.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
JARS = ROOT / ".cache" / "flink" / "lib"
STATE = ROOT / ".cache" / "flink" / "cluster"

OPENED = [
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "util", "nio", "util.concurrent", "lang.reflect", "text", "time", "net")
]
JAVA = [
    "-XX:MaxDirectMemorySize=1g",  # Groups of 32 MB go to Python through it, some at a time.
    "-XX:+ExitOnOutOfMemoryError",  # A job whose TaskManager has lost a thread to it would never end.
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
]
# A TaskManager does not start without every one of these, unless Flink's own shell scripts work them out.
TASKMANAGER = {
    "taskmanager.numberOfTaskSlots": "1",
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.task.heap.size": "402653184b",
    "taskmanager.memory.task.off-heap.size": "0b",
    "taskmanager.memory.managed.size": "268435456b",
    "taskmanager.memory.network.min": "134217728b",
    "taskmanager.memory.network.max": "134217728b",
    "taskmanager.memory.framework.heap.size": "134217728b",
    "taskmanager.memory.framework.off-heap.size": "134217728b",
    "taskmanager.memory.jvm-metaspace.size": "268435456b",
    "taskmanager.memory.jvm-overhead.min": "201326592b",
    "taskmanager.memory.jvm-overhead.max": "201326592b",
}
CONFIGURATION = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
jobmanager.memory.process.size: 1024m
rest.address: 127.0.0.1
rest.port: {rest}
rest.bind-address: 127.0.0.1
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.memory.process.size: 1728m
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1s
heartbeat.interval: 2000
heartbeat.timeout: 10000
classloader.resolve-order: parent-first
"""
# The last line: a job brings the jars that lie on the class path already; classes out of both do not fit together.


class Cluster:
    """The processes of one cluster, recorded in `state`/cluster.json so that another command finds them."""

    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self._record = state / "cluster.json"
        self._data: dict = json.loads(self._record.read_text()) if self._record.exists() else {}

    def start(self, taskmanagers: int = 2) -> list[str]:
        """Start everything and wait until it answers; returns Beam's options for a job. Raises RuntimeError."""
        if not shutil.which("java") or not any(JARS.glob("*.jar")):
            raise RuntimeError(f"no Java, or no jars in {JARS}: run `make tools`")
        if self.running():
            raise RuntimeError(f"a cluster runs already: {self.running()}; stop it first")
        conf = self.state / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        ports = dict(zip(("rpc", "rest", "job", "pool"), _free_ports(4), strict=True))
        self._data = {"ports": ports, "processes": {}}
        (conf / "flink-conf.yaml").write_text(CONFIGURATION.format(**ports))
        try:
            self._start_all(conf, taskmanagers)
        except BaseException:
            self.stop()
            raise
        return self.options(taskmanagers)

    def _start_all(self, conf: Path, taskmanagers: int) -> None:
        ports = self._data["ports"]
        self._java(
            "jobmanager", "-Xmx600m", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
            "--configDir", str(conf),
        )  # fmt: skip
        for _ in range(taskmanagers):
            self.add_taskmanager()
        self._java(
            "jobserver", "-Xmx400m", "org.apache.beam.runners.flink.FlinkJobServerDriver",
            f"--flink-master=127.0.0.1:{ports['rest']}", "--job-host=127.0.0.1", f"--job-port={ports['job']}",
            "--artifact-port=0", "--expansion-port=0", f"--artifacts-dir={self.state / 'artifacts'}",
        )  # fmt: skip
        pool = [sys.executable, str(HERE / "worker_pool.py"), f"--port={ports['pool']}"]
        self._spawn("pool", pool, {"PYTHONPATH": str(ROOT)})
        self._wait("jobserver", lambda: _listens(ports["job"]))
        self._wait("pool", lambda: _listens(ports["pool"]))
        self._wait("taskmanager", lambda: self.overview().get("slots-total", 0) >= taskmanagers)

    def options(self, parallelism: int) -> list[str]:
        """Beam's options for a job on this cluster."""
        ports = self._data["ports"]
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{ports['job']}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{ports['pool']}",
            f"--parallelism={parallelism}",
        ]

    def add_taskmanager(self) -> str:
        """Start one more TaskManager; returns its name."""
        numbers = [int(name[11:]) for name in self._data["processes"] if name.startswith("taskmanager")]
        name = f"taskmanager{max(numbers, default=0) + 1}"
        settings = [word for key, value in TASKMANAGER.items() for word in ("-D", f"{key}={value}")]
        self._java(
            name, "-Xmx800m", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            "--configDir", str(self.state / "conf"), *settings,
        )  # fmt: skip
        return name

    def kill_taskmanager(self) -> str:
        """`kill -9` the oldest TaskManager; returns its name."""
        names = [name for name in self.running() if name.startswith("taskmanager")]
        if not names:
            raise RuntimeError("no TaskManager runs")
        os.kill(self._data["processes"].pop(names[0])["pid"], signal.SIGKILL)
        self._save()
        return names[0]

    def workers(self) -> list[int]:
        """Process ids of the Python workers, the oldest first."""
        # The pool's first child listens.
        return _children(self._data["processes"]["pool"]["pid"])[1:]

    def kill_worker(self) -> int:
        """`kill -9` the newest Python worker; returns its process id. Its job is restarted."""
        for worker in reversed(self.workers()):
            # It may end by itself meanwhile: Flink drops the workers of a stage that is done.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                return worker
        raise RuntimeError("no Python worker runs: they start with a job")

    def running(self) -> dict[str, int]:
        """Name and process id of what runs."""
        return {name: entry["pid"] for name, entry in self._data.get("processes", {}).items() if _is_ours(entry)}

    def overview(self) -> dict:
        """The JobManager's summary: slots, TaskManagers, jobs; empty while it does not answer."""
        return self._query("overview")

    def failures(self) -> dict[str, int]:
        """How often each job failed so far and was restarted, by its id, the oldest job first."""
        jobs = sorted(self._query("jobs/overview").get("jobs", []), key=lambda job: job["start-time"])
        return {
            job["jid"]: len(self._query(f"jobs/{job['jid']}/exceptions").get("exceptionHistory", {}).get("entries", []))
            for job in jobs
        }

    def _query(self, path: str) -> dict:
        """Return the JobManager's answer to a query over HTTP; empty where it does not answer."""
        with contextlib.suppress(OSError, ValueError):
            url = f"http://127.0.0.1:{self._data['ports']['rest']}/{path}"
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
                return json.load(answer)
        return {}

    def stop(self) -> None:
        """End every process of this cluster, workers included."""
        groups = self.running()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in groups.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
            for _ in range(50):
                if not self.running():
                    break
                time.sleep(0.1)
        self._data = {}
        self._record.unlink(missing_ok=True)
        shutil.rmtree(self.state / "artifacts", ignore_errors=True)

    def _java(self, name: str, memory: str, *arguments: str) -> None:
        command = ["java", memory, *OPENED, *JAVA, "-cp", str(JARS / "*"), *arguments]
        self._spawn(name, command, {"FLINK_CONF_DIR": str(self.state / "conf")})

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.state / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Its own group, so that workers it starts end with it.
            )
        self._data["processes"][name] = {"pid": process.pid, "command": command}
        self._save()

    def _save(self) -> None:
        self._record.write_text(json.dumps(self._data))

    def _wait(self, name: str, ready, seconds: float = 90) -> None:  # type: ignore[no-untyped-def]
        end = time.monotonic() + seconds
        while not ready():
            gone = set(self._data["processes"]) - set(self.running())
            if gone or time.monotonic() > end:
                raise RuntimeError(f"{sorted(gone) or name} did not start: see {self.state}/*.log")
            time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    """Ports that are free now, all held open until all are chosen."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ours(entry: dict) -> bool:
    """Whether the process still runs and is the one that was started, not a later one with its number."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(entry["pid"], os.WNOHANG)
    command_line = ["ps", "-ww", "-o", "stat=,command=", "-p", str(entry["pid"])]
    shown = subprocess.run(command_line, capture_output=True, text=True)
    state, _, command = shown.stdout.strip().partition(" ")
    return bool(state) and not state.startswith("Z") and entry["command"][-1] in command


def _children(pid: int) -> list[int]:
    shown = subprocess.run(
        ["ps", "-o", "pid=", "--sort=start_time", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(word) for word in shown.stdout.split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    commands = ["start", "status", "kill-taskmanager", "add-taskmanager", "kill-worker", "stop"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--taskmanagers", type=int, default=2, metavar="N")
    parser.add_argument("--state", type=Path, default=STATE, metavar="FOLDER")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.state.resolve())
    try:
        if arguments.command == "start":
            print(" ".join(cluster.start(arguments.taskmanagers)))
        elif arguments.command == "status":
            print(json.dumps({"processes": cluster.running(), "flink": cluster.overview()}, indent=1))
        elif arguments.command == "kill-taskmanager":
            print(cluster.kill_taskmanager())
        elif arguments.command == "add-taskmanager":
            print(cluster.add_taskmanager())
        elif arguments.command == "kill-worker":
            print(cluster.kill_worker())
        else:
            cluster.stop()
    except (RuntimeError, KeyError) as error:
        print(f"no cluster runs in {arguments.state}" if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
