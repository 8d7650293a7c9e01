"""A local worker process: Beam's own, with one thread for each library, for there is a process for each core."""

import os
import signal
import sys
import threading
import time
import traceback

from pipeline.runtime.quiet import import_beam, quiet_worker

__all__ = ["main"]


def main() -> None:
    """Serve the driver that started this process; its process id is the argument."""
    # A Ctrl-C ends it at once and silently; the driver informs the user.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    quiet_worker()
    threading.Thread(target=_end_with_driver, args=(int(sys.argv[1]),), name="end-with-driver", daemon=True).start()
    import_beam()
    import pyarrow
    from apache_beam.runners.worker import sdk_worker_main

    pyarrow.set_cpu_count(1)
    # Beam prints each exception of a stage here and sends it to the driver as well, which informs the user.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        sdk_worker_main.main(sys.argv)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        raise


def _end_with_driver(driver: int) -> None:
    """End this process soon after the driver's, however that ended: Beam's worker would wait on without end."""
    while os.getppid() == driver:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
