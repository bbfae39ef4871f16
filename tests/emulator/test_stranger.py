"""Somebody else's project tests its own program with our fixture (examples/stranger)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "stranger"


def passes(python: Path | str, folder: Path, *flags: str) -> str:
    """Run the example's tests in four processes; what pytest said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(
        [str(python), "-m", "pytest", "-n", "4", "-q", *flags], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns(".*", "__pycache__")))


def test_the_strangers_tests_are_short_and_pass_in_four_processes(project: Path) -> None:
    """At most thirty lines, the official SDK, own ports and states: nothing is shared between the workers."""
    text = (project / "test_nightly.py").read_text()
    assert len(text.splitlines()) <= 30
    assert {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))} == {
        "nightly", "openai", "pytest"
    }  # fmt: skip
    # Plugins of our own development environment that a stranger does not have.
    assert "4 passed" in passes(sys.executable, project, "-p", "no:asyncio", "-p", "no:randomly")


@pytest.mark.slow
def test_the_strangers_tests_pass_with_our_wheel_in_a_venv_of_their_own(project: Path, tmp_path: Path) -> None:
    """``pip install`` of the wheel with ``[testing]``, then ``pytest -n 4``; a minute, most of it pip's."""
    quiet = ["--quiet", "--disable-pip-version-check"]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *quiet,
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(pip, check=True, timeout=120)
    (wheel,) = tmp_path.glob("sluicegate-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", *quiet, f"{wheel}[testing]", "pytest-xdist"]
    subprocess.run(install, check=True, timeout=300)

    assert "4 passed" in passes(python, project)
