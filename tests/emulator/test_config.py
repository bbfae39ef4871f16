"""Accounts as data: files of settings, presets, and what is refused."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sluicegate.emulator.config import NEVER, Account, Change, Deployment, LongLimit, build, fields_of
from sluicegate.emulator.faults import Fault
from sluicegate.emulator.presets import PRESETS, preset
from sluicegate.errors import UsageError
from sluicegate.testing import local_emulator
from tests.emulator.support import NOON, Bench

ROOT = Path(__file__).parent.parent.parent


def test_a_file_describes_an_account(tmp_path: Path) -> None:
    """Every kind of setting; flags win over the file, the file over presets."""
    path = tmp_path / "emulator.toml"
    path.write_text(
        'limit = "60K"\nregion = "eastus"\nvalidating = "4s"\nrelease_lag = "never"\nkeys = ["a", "b"]\n'
        "rhythm = [[0, 1.0], [8, 0.5]]\nrate = 100.0\n"
        "[deployments]\nplain = '30K'\n"
        'full = {model = "gpt-4o", type = "DataZoneBatch", capacity = 50, dead = true}\n'
        '[model_limits]\n"gpt-4.1" = "90K"\n[long_limits]\n"gpt-4.1" = {above = "128K", limit = "2M"}\n'
        '[[timetable]]\nat = "25s"\nlimit = "180K"\n'
        '[[timetable]]\nat = 0\ntokens = "36K"\nfor = "40s"\nlisted = false\ndeployment = "plain"\n'
        '[[fault]]\non = "create"\nkind = "lost"\nnth = 3\n[[fault]]\non = "list"\nkind = "lag"\nseconds = "2m"\n'
    )
    account = build(presets=("azure-5b", "azure-2024-times"), path=path, given={"rate": 7.0}).with_defaults()

    assert (account.limit, account.rate, account.validating_s, account.finalizing_s) == (60_000, 7.0, 4.0, 60.0)
    assert (account.fail_fast, account.release_lag_s, account.keys) == (True, NEVER, ("a", "b"))
    assert account.rhythm == ((0.0, 1.0), (8.0, 0.5))
    assert account.deployments == (
        Deployment("plain", 30_000), Deployment("full", 50_000, "gpt-4o", "DataZoneBatch", dead=True)
    )  # fmt: skip
    assert account.long_limits == (LongLimit("gpt-4.1", 128_000, 2_000_000),)
    assert account.model_of("full") == "gpt-4o"
    assert account.timetable == (
        Change(at_s=25.0, limit=180_000), Change(at_s=0.0, tokens=36_000, for_s=40.0, listed=False, deployment="plain")
    )  # fmt: skip
    assert account.faults == (
        Fault(on="create", kind="lost", nth=3), Fault(on="list", kind="lag", seconds=120.0)
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["nonsense = 1", 'limit = "many"', 'dialect = "ibm"', "speed = 0", "slots = 0", "rhythm = [[5, 1], [4, 1]]",
     "rhythm = [[0, 0]]", 'validating = "soon"', '[[fault]]\non = "create"\nkind = "moon"', "validating_s = 1",
     '[[timetable]]\nlimit = "1K"', 'preset = "no-such"', "[deployments]\nx = {colour = 1}", "not toml",
     'rate = "fast"', "keys = [1]", 'keys = "one"', "seed = 1.5", "headers = 1", "region = 7", "slots = true", "faults = []"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing is accepted and ignored."""
    path = tmp_path / "emulator.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        build(path=path, given={})


@pytest.mark.parametrize(
    "words",
    [{"fault": [{"on": "create", "kind": "lost", "colour": "red"}]}, {"fault": [{"kind": "lost"}]}, {"limit": "many"},
     {"timetable": [{"at": 1, "colour": "red"}]}, {"deployments": {"x": {"colour": "red"}}}, {"keys": "one"}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_test_too(words: dict[str, Any]) -> None:
    """By the error that ``local_emulator`` promises."""
    with pytest.raises(UsageError), local_emulator(**words):
        pass


def test_a_list_where_a_table_belongs_says_how_to_write_it(tmp_path: Path) -> None:
    """Found by hand: it spoke of an attribute that a list has not."""
    path = tmp_path / "emulator.toml"
    path.write_text('[[deployments]]\nname = "x"')
    with pytest.raises(UsageError, match=r"deployments is a table, \[deployments\]"):
        build(path=path, given={})


def test_a_marker_without_names_is_refused_and_not_ignored(tmp_path: Path) -> None:
    """The error says what to write."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.batch_emulator('azure-30k')\ndef test_it(batch_emulator):\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 1
    assert "batch_emulator takes names only, as preset='azure-30k'" in done.stdout


def test_every_preset_is_an_account_says_what_it_imitates_and_stands_in_the_docs() -> None:
    """With its source; a name that does not exist is refused with those that do."""
    page = (ROOT / "docs" / "emulate.md").read_text(encoding="utf-8")
    for name, one in PRESETS.items():
        assert build(presets=(name,), given={}).with_defaults()
        assert one.source
        assert f"| `{name}` | {one.imitates} | {one.source} |" in page
    with pytest.raises(UsageError, match="azure-30k, "):
        preset("azure-30m")


def test_presets_have_the_numbers_of_their_sources() -> None:
    """A few by hand, from the providers' tables."""
    assert Account(**preset("azure-30k")).limit == 30_000
    assert Account(**preset("azure-30k-fail-fast")).with_defaults().fail_fast is True
    assert Account(**preset("azure-5b")).limit == 5_000_000_000
    tier1 = Account(**preset("openai-tier1"))
    assert (tier1.dialect, dict(tier1.model_limits)["gpt-4.1-mini"]) == ("openai", 2_000_000)
    assert fields_of({"preset": ["azure-30k", "azure-2024-times"], "limit": "40K"})["limit"] == 40_000


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("azure-sample-times", [365, 677, 768]),
        ("azure-2024-times", [60, 180, 240]),
        ("openai-sample-times", [5, 21_600, 21_630]),
    ],
)
def test_times_are_those_that_were_reported(name: str, wanted: list[int]) -> None:
    """Seconds from the create to in_progress, finalizing, completed (F§2.2)."""
    bench = Bench(**preset(name))
    batch = bench.create(0, [10, 10, 10])
    bench.at(100_000)

    assert [
        round(batch.times[f"{status}_at"] - NOON) for status in ("in_progress", "finalizing", "completed")
    ] == wanted


def test_every_setting_of_an_account_has_its_word_in_the_docs() -> None:
    """Fields of the account, of a deployment, of a change, of a fault."""
    page = (ROOT / "docs" / "emulate.md").read_text(encoding="utf-8")
    source = ast.parse((ROOT / "src" / "sluicegate" / "emulator" / "config.py").read_text(encoding="utf-8"))
    names = {
        line.target.id.removesuffix("_s")
        for node in source.body
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    missing = [name for name in sorted(names) if f"`{name}`" not in page and f"`{name} = " not in page]
    assert missing == []


def test_the_file_shown_in_the_docs_is_one() -> None:
    """Copied and used."""
    page = (ROOT / "docs" / "emulate.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    table = tomllib.loads(text)
    europe = table.pop("resources")["europe"]

    account = Account(**fields_of(table)).with_defaults()
    assert (account.fail_fast, len(account.timetable), len(account.faults), len(account.deployments)) == (True, 2, 1, 3)
    assert fields_of(europe) == {"region": "westeurope"}
