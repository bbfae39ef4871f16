"""Worker processes: where they come from and how they end. It imports next to nothing, since each of them does too."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path


def start_server() -> None:
    """Start the process that workers are forked from, and do not wait until it has loaded what they need."""
    forkserver.set_forkserver_preload(["sluicegate.preload"])
    forkserver.ensure_running()


def begin(main: int) -> None:
    """In a worker: leave Ctrl-C to the main process, and when that is gone end the fork server and this worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = os.getppid()

    def watch() -> None:
        while os.getppid() == server and not _gone(main):
            time.sleep(0.5)
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _gone(pid: int) -> bool:
    """True if a process has ended, also if nobody has asked for its exit code yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return False
