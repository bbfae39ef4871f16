"""The settings file that `sluicegate init` writes."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sluicegate.settings import Settings
from sluicegate.settings_file import template

LINES = [line.removeprefix("# ") for line in template().splitlines() if re.match(r"# \w+ = ", line)]


def init(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sluicegate", "init", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_it_writes_what_loads_and_changes_nothing(tmp_path: Path) -> None:
    """As written: all defaults. Only its owner may read it, since people put keys there."""
    done = init(tmp_path)
    path = tmp_path / "sluicegate.toml"

    assert done.returncode == 0 and "sluicegate serve" in done.stdout
    assert tomllib.loads(path.read_text()) == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = [sys.executable, "-m", "sluicegate", "config", "--json", "--config", str(path)]
    assert '"from": "default"' in subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def test_it_replaces_nothing_without_being_told(tmp_path: Path) -> None:
    """Exit code 2 and the way out; with --force it is written anew."""
    path = tmp_path / "mine.toml"
    path.write_text("limit = '30K'\n")

    refused = init(tmp_path, "mine.toml")
    assert refused.returncode == 2 and "--force" in refused.stderr and path.read_text() == "limit = '30K'\n"
    assert init(tmp_path, "mine.toml", "--force").returncode == 0 and path.read_text() == template()
    assert init(tmp_path, str(tmp_path)).returncode == 2
    assert "cannot be written" in init(tmp_path, "no/such/folder.toml").stderr


def test_it_has_every_setting_once() -> None:
    """Each with a sentence above it."""
    names = [line.partition(" = ")[0] for line in LINES]

    assert sorted(names) == sorted(set(Settings.model_fields) - {"config"})
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("line", LINES, ids=[line.partition(" = ")[0] for line in LINES])
def test_each_line_loads_when_its_mark_is_gone(tmp_path: Path, line: str) -> None:
    """What stands there is a value that the setting takes."""
    path = tmp_path / "sluicegate.toml"
    path.write_text(line + "\n", encoding="utf-8")

    name = line.partition(" = ")[0]
    assert str(path) in Settings.load({}, config=path).origins()[name]
