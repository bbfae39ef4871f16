"""Locks that the system frees, in files that go when nobody holds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sluicegate.adapters.lock import FileLock

TURNS = """
import sys, time
from pathlib import Path
from sluicegate.adapters.lock import FileLock
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
lock = FileLock(folder)
done = 0
while done < 300:
    if lock.acquire("run-x"):
        try:
            inside.mkdir()   # fails if another process is inside too
            inside.rmdir()
        finally:
            lock.release("run-x")
        done += 1
"""


def test_a_lock_is_one_processs_and_its_file_goes_with_it(tmp_path: Path) -> None:
    """Held: not free for others; released: free, and no file is left."""
    one, other = FileLock(tmp_path), FileLock(tmp_path)
    assert one.acquire("run-a") and one.acquire("run-a") and not other.acquire("run-a") and not other.is_free("run-a")
    one.release("run-a")
    assert other.is_free("run-a") and not list(tmp_path.iterdir())
    assert other.acquire("run-a")


def test_who_asks_learns_what_living_processes_have(tmp_path: Path) -> None:
    """Its own and others'; not the file that a dead one left."""
    one, other = FileLock(tmp_path), FileLock(tmp_path)
    assert one.acquire("run-a") and other.acquire("run-b")
    (tmp_path / "run-dead.lock").write_text("1")
    assert one.taken() == other.taken() == {"run-a", "run-b"}
    other.release("run-b")
    assert one.taken() == {"run-a"}


def test_two_processes_are_never_inside_together(tmp_path: Path) -> None:
    """Three processes take turns as fast as they can; the file is deleted at each release."""
    locks = tmp_path / "locks"
    locks.mkdir()
    command = [sys.executable, "-c", TURNS, str(locks), str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said


ASKS = """
import sys
from pathlib import Path
from sluicegate.adapters.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print("asking", flush=True)
while True:
    lock.is_free("run-x")
"""


def test_asking_whether_a_lock_is_free_keeps_nobody_out(tmp_path: Path) -> None:
    """Whoever asks has the lock for a moment: such a moment is no owner."""
    owner = FileLock(tmp_path)
    asker = subprocess.Popen([sys.executable, "-c", ASKS, str(tmp_path)], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    with asker, asker.stdout as told:
        told.readline()
        try:
            for _ in range(1_000):
                assert owner.acquire("run-x")
                owner.release("run-x")
        finally:
            asker.kill()
