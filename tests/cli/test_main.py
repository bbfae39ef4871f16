"""The command line from outside: exit codes, helps, what is imported, what reaches the library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sluicegate
from sluicegate.cli.main import main
from sluicegate.errors import AuthenticationFailed, InputRefused, Interrupted, SluicegateError, UsageError
from tests.cli.scripted import EVENTS, RUN, quota_row, report, result

HEAVY = ("sqlalchemy", "alembic", "openai", "tiktoken", "toktok", "fastapi", "pydantic", "pydantic_settings", "aiohttp",
         "uvicorn", "msgspec")  # fmt: skip

COMMANDS = (
    ("run",), ("check",), ("quota",), ("quota", "pause"), ("quota", "resume"), ("quota", "set-limit"), ("batches",),
    ("batches", "list"), ("batches", "show"), ("batches", "cancel"), ("batches", "salvage"), ("batches", "forget"),
    ("prune",), ("config",), ("emulate",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine take part."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith(("SLUICEGATE_", "OPENAI_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def sluicegate_process(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program as a person starts it."""
    return subprocess.run(
        [sys.executable, "-m", "sluicegate", *words], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | environ,
    )  # fmt: skip


class Library(SimpleNamespace):
    """Stands for sluicegate.api and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def answers(self, name: str, value: Any) -> None:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if isinstance(value, Exception):
                raise value
            return value

        setattr(self, name, call)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    fake = Library()
    monkeypatch.setitem(sys.modules, "sluicegate.api", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(sluicegate, "api", fake, raising=False)
    return fake


# -- helps -------------------------------------------------------------------------------------------------------------


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out

    for command in ("run", "check", "quota", "batches", "emulate", "prune", "config"):
        assert f"│ {command} " in said or f"\n  {command}" in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_examples_and_exit_codes(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What to type, and what a script may rely on."""
    assert main([*command, "--help"]) == 0
    said = capsys.readouterr().out

    assert f"Usage: sluicegate {' '.join(command)}" in said
    assert f"  sluicegate {' '.join(command)}" in said.partition("Examples:")[2]
    assert "Exit codes:" in said


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["quota", "--help"]], ids=" ".join)
def test_helps_import_nothing_heavy(words: list[str]) -> None:
    """No database, no provider's SDK, no vocabulary, no web framework."""
    script = f"""
        import sys
        from sluicegate.cli.main import main
        assert main({words!r}) == 0
        print("LOADED", *[name for name in {HEAVY!r} if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else is printed."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == sluicegate.__version__


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rnu",), 'Unknown command "rnu"'),
        (("run",), "INPUT requires an argument"),
        (("run", "a.jsonl", "--frobnicate"), "--frobnicate"),
        (("config", "--limit", "30X"), "limit"),
        (("config", "--set", "margn=2"), "did you mean margin?"),
        (("config", "--set", "api_key=x"), "set it in the environment"),
        (("config", "--limit", "1", "--set", "limit=2"), "given twice"),
        (("config", "--config", "missing.toml"), "missing.toml does not exist"),
        (("quota", "--poll", "3s"), "--poll is for --watch"),
        (("quota", "set-limit", "d", "lots"), "LIMIT"),
        (("prune", "--keep", "long"), "--keep"),
        (("run", "a.jsonl", "--cancel", "--new"), "--cancel only cancels"),
        (("run", "a.jsonl", "-o", "-"), "cannot go to standard output"),
        (("run", "-", "-x"), "-x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors_exit_2_with_one_clean_message(words: tuple[str, ...], said: str) -> None:
    """On standard error, without a traceback."""
    done = sluicegate_process(*words)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("u"), 2), (InputRefused("i"), 3), (Interrupted("s"), 4), (AuthenticationFailed("a"), 5)],
)
def test_each_error_has_its_exit_code(
    error: SluicegateError, code: int, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the tree in errors.py says; a stop that was asked for is not called an error."""
    library.answers("run_async", error)

    assert main(["run", "a.jsonl"]) == code
    said = capsys.readouterr().err
    assert said.startswith("stopped" if code == 4 else "error: ") or code == 4
    assert "Traceback" not in said


def test_a_full_disk_is_said_by_the_systems_own_sentence(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for what the person can put right."""
    library.answers("run_async", OSError(28, "No space left on device", "/data/x"))

    assert main(["run", "a.jsonl"]) == 2
    assert "error: /data/x: No space left on device" in capsys.readouterr().err


def test_what_should_not_happen_exits_70_and_shows_a_traceback_only_when_asked(
    library: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short message and what to report; --debug or SLUICEGATE_DEBUG=1 for the rest."""
    library.answers("run_async", ZeroDivisionError("oh"))

    assert main(["run", "a.jsonl"]) == 70
    said = capsys.readouterr().err
    assert "this should not happen: ZeroDivisionError: oh" in said
    assert "--debug" in said
    assert "Traceback" not in said

    assert main(["run", "a.jsonl", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SLUICEGATE_DEBUG", "1")
    assert main(["run", "a.jsonl"]) == 70
    assert "Traceback" in capsys.readouterr().err


# -- what reaches the library, and what comes back ---------------------------------------------------------------------


def test_run_hands_its_options_to_the_library(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag arrives, as a setting or as an argument."""
    library.answers("run_async", result(exit_code=0))
    code = main(
        ["run", "a.jsonl", "-", "-o", "out", "--errors", "err", "--skip-bad", "--adopt", "--new", "--limit", "30K",
         "--deployment", "d", "--poll", "1s", "--attempts", "5", "--max-cost", "2.5", "--state", "st", "--base-url",
         "http://127.0.0.1:1/v1", "--set", "margin=1.1"]
    )  # fmt: skip
    (_, (inputs,), given), settings = library.calls[0], library.calls[0][2]["settings"]

    assert code == 0
    assert inputs == ["a.jsonl", "-"]
    assert (given["output"], given["errors"]) == (Path("out"), Path("err"))
    assert (given["skip_bad"], given["adopt"], given["new"]) == (True, True, True)
    assert (settings.limit, settings.deployment, settings.poll, settings.attempts) == (30_000, "d", 1.0, 5)
    assert (settings.max_cost, settings.state, settings.margin) == (2.5, Path("st"), 1.1)
    assert "1,498 answered" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["-"], ["-", "--limit", "30K"], ["a.jsonl", "-"], ["--json", "-"]], ids=" ".join)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_hyphen_is_standard_input_wherever_it_stands(command: str, words: list[str], library: Library) -> None:
    """Before and after options and other inputs."""
    library.answers("run_async", result(exit_code=0))
    library.answers("check_async", report(problems=[], problem_count=0))

    assert main([command, *words]) == 0
    assert library.calls[0][1][0][-1] == "-"


def test_run_cancel_cancels(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs nothing."""
    library.answers("cancel_run_async", {"id": RUN, "cancelled": ["batch_1"], "ended_already": ["batch_2"]})

    assert main(["run", "a.jsonl", "--cancel"]) == 0
    assert "asked the provider to cancel batch_1" in capsys.readouterr().out


def test_check_exits_3_on_errors_and_prints_json_alone(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """The object as it is, on one line."""
    library.answers("check_async", report())

    assert main(["check", "a.jsonl", "--json", "--offline"]) == 3
    assert json.loads(capsys.readouterr().out)["problem_count"] == 11
    assert library.calls[0][2]["ask_provider"] is False

    library.answers("check_async", report(problems=[], problem_count=0))
    assert main(["check", "a.jsonl"]) == 0
    assert "ready: no problems" in capsys.readouterr().out


def test_quota_prints_rows(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, a list for machines."""
    library.answers("quota_async", [quota_row()])

    assert main(["quota", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["headroom"] == 3_600
    assert main(["quota"]) == 0
    assert "gpt-4.1-batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "action", "limit"),
    [
        (["pause", "d"], "pause", None),
        (["resume", "d"], "resume", None),
        (["set-limit", "d", "2M"], "set-limit", 2_000_000),
        (["set-limit", "d", "none"], "set-limit", None),
    ],
)
def test_overrides_reach_the_library(library: Library, words: list[str], action: str, limit: int | None) -> None:
    """``none`` takes the override back."""
    library.answers(f"quota_{action.replace('-', '_')}_async", quota_row())

    assert main(["quota", *words]) == 0
    assert library.calls[0][1] == (("d", limit) if action == "set-limit" else ("d",))


def test_batches_show_tells_the_history_in_words(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part with what was decided, why and when."""
    library.answers(
        "batches_show_async",
        {
            "run": {"run": RUN, "state": "active", "requests": 9, "waiting": 1, "enqueued": 2, "answered": 5,
                    "failed": 1},
            "batches": [{"id": "b", "input": "a.jsonl", "output": "o.jsonl", "requests": 9, "written": 6, "failed": 1}],
            "parts": [{"id": "part_1", "provider_batch": "batch_1", "deployment": "d", "stage": "held",
                       "means": "the provider holds its tokens", "requests": 9, "tokens": 900,
                       "reason": "all that fits", "error": None,
                       "history": [{"at": EVENTS[1].at, "sentence": "ledger: reserve 918 tokens"}]}],
        },
    )  # fmt: skip

    assert main(["batches", "show", RUN]) == 0
    said = capsys.readouterr().out
    for expected in ("part_1  batch_1  held", "why this size: all that fits", "ledger: reserve 918 tokens"):
        assert expected in said


def test_batches_list_salvage_forget_and_prune_speak(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what it did."""
    row = {"run": RUN, "state": "active", "inputs": ["a.jsonl", "b.jsonl"], "requests": 1_500, "waiting": 3,
           "enqueued": 2, "answered": 1, "failed": 0, "parts": 4, "created_at": EVENTS[0].at,
           "finished_at": None}  # fmt: skip
    library.answers("batches_list_async", [row])
    library.answers("batches_salvage_async", {"id": RUN, "waiting_again": 2, "next": "run the same command again"})
    library.answers("batches_forget_async", {"id": RUN, "forgotten": ["batch_1"]})
    library.answers(
        "prune_async", {"runs": [RUN], "bytes": 1_500_000, "provider_files": 2, "elsewhere": {}, "failed": 1}
    )

    said = ""
    for words in (["batches", "list"], ["batches", "salvage", RUN], ["batches", "forget", RUN], ["prune", "--dry-run"]):
        assert main(words) == 0
        said += capsys.readouterr().out
    assert "a.jsonl and 1 other" in said
    assert "2 requests of" in said
    assert "gave up batch_1" in said
    assert "would remove 1 run, 1.5 MB in the data folder, 2 files at the provider" in said
    assert "left 1 run with files that the provider does not delete now: try again later" in said
    assert library.calls[-1][2]["keep_days"] == 7.0


def test_config_masks_secrets_and_says_where_values_are_from() -> None:
    """In the table and in JSON."""
    secret = {"OPENAI_API_KEY": "sk-very-secret", "AZURE_OPENAI_AD_TOKEN": "ey-very-secret"}
    table = sluicegate_process("config", "--limit", "30K", **secret)
    machine = sluicegate_process("config", "--json", **secret)
    rows = {row["name"]: row for row in json.loads(machine.stdout)}

    assert "very-secret" not in table.stdout + table.stderr + machine.stdout + machine.stderr
    assert rows["api_key"] == {"name": "api_key", "value": "********", "from": "environment OPENAI_API_KEY"}
    limit = next(line for line in table.stdout.splitlines() if line.startswith("limit "))
    assert limit.split() == ["limit", "30,000", "argument"]


# -- signals and pipes -------------------------------------------------------------------------------------------------

SCRIPTED = """
    import asyncio, sys
    from sluicegate.cli import reporters, run
    from sluicegate.cli.main import _failed
    from sluicegate.errors import Interrupted
    from tests.cli.scripted import EVENTS

    async def fake(on_event, on_progress, on_check, on_report, stop):
        on_event(EVENTS[0])
        {body}

    try:
        sys.exit(run.drive(reporters.LineReporter(now=lambda: 0.0), lambda hooks: fake(**hooks)))
    except Interrupted as error:
        sys.exit(_failed(error, debug=False))
"""


def scripted_process(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPTED).replace("{body}", body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_first_signal_stops_and_the_second_leaves() -> None:
    """A run that will not stop is left within two seconds, with exit 4 and how to go on."""
    process = scripted_process("await asyncio.shield(asyncio.to_thread(__import__('time').sleep, 30))")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "no new parts" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, said = process.communicate(timeout=20)

    assert process.returncode == 4
    assert time.monotonic() - started < 5
    assert "to go on:" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_ends_quietly() -> None:
    """`sluicegate run … | head -1` stops the run and says nothing."""
    process = scripted_process(
        """
        while not stop.is_set():
            on_event(EVENTS[1])
            await asyncio.sleep(0.01)
        raise Interrupted("stopped")
    """.strip().replace("\n        ", "\n    ")
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=20) == 141
    assert said == ""
