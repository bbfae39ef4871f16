"""``sluicegate emulate``: every flag reaches the account."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from sluicegate.cli.emulate import emulate
from sluicegate.emulator.config import NEVER, Account, Deployment
from sluicegate.errors import UsageError

FLAGS: dict[str, tuple[Any, str, Any]] = {
    "dialect": ("openai", "dialect", "openai"), "region": ("eastus", "region", "eastus"), "limit": ("30K", "limit", 30_000),
    "deployment": (("a=1K", "b"), "deployments", (Deployment("a", 1_000), Deployment("b"))), "key": (("k",), "keys", ("k",)),
    "entra_key": ("s", "entra_key", "s"), "blobs": (Path("/blobs"), "blobs", "/blobs"), "rate": (6.0, "rate", 6.0),
    "discipline": ("slots", "discipline", "slots"), "slots": (2, "slots", 2), "validating": ("2m", "validating_s", 120.0),
    "start": ("2h", "start_s", 7_200.0), "finalizing": ("5", "finalizing_s", 5.0), "delays": ("pareto", "delays", "pareto"),
    "spread": (2.0, "spread", 2.0), "pending": ("3s", "pending_s", 3.0), "expire": ("1d", "expire_s", 86_400.0),
    "fail_fast": (True, "fail_fast", True), "refusal": ("bare", "refusal", "bare"), "headers": (False, "headers", False),
    "count_factor": (1.5, "count_factor", 1.5), "release_lag": ("never", "release_lag_s", NEVER), "speed": (60.0, "speed", 60.0),
    "clock": ("hand", "clock", "hand"), "answers": ("http://x/v1", "answers", "http://x/v1"), "seed": (4, "seed", 4),
    "preset": (("azure-30k", "azure-2024-times"), "finalizing_s", 60.0),
}  # fmt: skip
ELSEWHERE = {"host", "port", "data", "config", "report", "report_to"}
"""Not of the account: tested where they act."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would be served."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "sluicegate.emulator.run.serve", lambda account, **more: calls.append({"account": account, **more})
    )
    return calls


def test_every_flag_is_in_the_table() -> None:
    """A new flag needs its row."""
    assert set(inspect.signature(emulate).parameters) == FLAGS.keys() | ELSEWHERE


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_reaches_the_account(served: list[dict[str, Any]], flag: str) -> None:
    """And differs from what would be without it."""
    given, name, wanted = FLAGS[flag]
    assert emulate(**{flag: given}) == 0

    account: Account = served[0]["account"]
    assert getattr(account, name) == wanted
    assert getattr(Account(), name) != wanted


def test_the_rest_reaches_the_server(served: list[dict[str, Any]], tmp_path: Path) -> None:
    """Address, folder, the file of settings."""
    (tmp_path / "e.toml").write_text("rate = 3\n")
    emulate(host="0.0.0.0", port=0, data=tmp_path, config=tmp_path / "e.toml")
    assert (served[0]["host"], served[0]["port"], served[0]["data"]) == ("0.0.0.0", 0, tmp_path)
    assert (served[0]["account"].rate, served[0]["stopped"]) == (3, None)


@pytest.mark.parametrize(
    "wrong", [{"limit": "many"}, {"validating": "soon"}, {"preset": ("nothing",)}, {"report_to": Path("books.txt")},
              {"speed": 0.0}, {"deployment": ("a=lots",)}],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_starts(served: list[dict[str, Any]], wrong: dict[str, Any]) -> None:
    """As usage, exit code 2."""
    with pytest.raises(UsageError):
        emulate(**wrong)
    assert served == []
