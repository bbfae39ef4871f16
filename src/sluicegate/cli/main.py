"""The command line. Starting it, and every ``--help``, imports none of the heavy parts: commands are loaded by name."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError

from sluicegate import __version__
from sluicegate.cli.options import STDIN_WORD
from sluicegate.errors import BackendError, Interrupted, SluicegateError

EXIT_USAGE: Final = 2
EXIT_UNEXPECTED: Final = 70
EXIT_BROKEN_PIPE: Final = 141
EXIT_CTRL_C: Final = 130

app = App(
    name="sluicegate",
    help="Any amount of work through Azure OpenAI's and OpenAI's Batch API, never over the enqueued-token limit.",
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help_epilogue="""Examples:
  sluicegate run requests.jsonl -o results.jsonl
  sluicegate check requests.jsonl
  sluicegate quota --watch

Keys and addresses come from the SDKs' own environment variables (AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY, or \
OPENAI_API_KEY). `sluicegate COMMAND --help` says more.""",
)

# Helps stand here and not in the modules: so this list can be shown without importing one of them.
app.command(
    "sluicegate.cli.run:run",
    name="run",
    usage="Usage: sluicegate run INPUT... [OPTIONS]",
    help="""Answer every request of the inputs, never over the enqueued-token limit.

Everything is checked before the first upload. Then the deployment is kept as full as its limit allows until every \
request has its answer, in input order, in one file. The same command again goes on where it was.""",
    help_epilogue="""Examples:
  sluicegate run requests.jsonl -o results.jsonl
  sluicegate run part-*.jsonl -o results/ --deployment gpt-4.1-batch --limit 30K
  zcat big.jsonl.gz | sluicegate run - -o results.jsonl --json
  tail -f results.jsonl.partial

Exit codes:
  0  every request answered
  1  finished; some requests ended in the error file
  2  usage or settings
  3  the check refused the input; nothing was submitted
  4  interrupted; the same command goes on
  5  the provider refuses for good (sign-in, no such deployment)""",
    sort_key=1,
)
app.command(
    "sluicegate.cli.check:check",
    name="check",
    usage="Usage: sluicegate check INPUT... [OPTIONS]",
    help="""Find every problem in the inputs, and say what the work is: requests, tokens, cost, time.

Nothing is submitted. Where credentials are at hand, the provider is asked how much fits right now.""",
    help_epilogue="""Examples:
  sluicegate check requests.jsonl
  sluicegate check requests.jsonl --limit 30K --deployment gpt-4.1-batch
  sluicegate check *.jsonl --offline --json

Exit codes:
  0  no errors (warnings do not count)
  2  usage or settings
  3  the inputs have errors""",
    sort_key=2,
)
app.command(
    "sluicegate.cli.quota:app",
    name="quota",
    help="Show the enqueued tokens of every deployment: limit, reserved, held, foreign, headroom.",
    sort_key=3,
)
app.command(
    "sluicegate.cli.batches:app",
    name="batches",
    help="Show what is under way and what happened; cancel, salvage or forget it.",
    sort_key=4,
)
app.command(
    "sluicegate.cli.emulate:emulate",
    name="emulate",
    help="Serve an emulated provider: files, batches, quota, refusals and faults, without a key or a bill.",
    help_epilogue="""Examples:
  sluicegate emulate --port 8080 --limit 30K
  sluicegate emulate --dialect openai --rate 6000 --speed 10

Exit codes:
  0  stopped
  2  usage or settings""",
    sort_key=5,
)
app.command(
    "sluicegate.cli.serve:serve",
    name="serve",
    help="""Serve the gateway: the Batch API that queues instead of refusing, for many clients and one limit.

Clients change their base URL and nothing else.
With no keys yet a first one is made: shown on a terminal, else in the data folder's file first-key.""",
    help_epilogue="""Examples:
  sluicegate serve
  sluicegate serve --host 0.0.0.0 --port 8000 --limit 30K

Exit codes:
  0  stopped; the next start goes on
  2  usage, settings, or another gateway serves this data folder""",
    sort_key=6,
)
app.command(
    "sluicegate.cli.keys:app",
    name="keys",
    help="Make, list, revoke and rotate the keys of the gateway's tenants.",
    sort_key=6,
)
app.command(
    "sluicegate.cli.prune:prune",
    name="prune",
    help="""Remove what finished runs keep in the data folder and at the provider.

Result and error files stay where they are.""",
    help_epilogue="""Examples:
  sluicegate prune --dry-run
  sluicegate prune --keep 24h

Exit codes:
  0  done
  2  usage or settings
  4  the provider does not answer; try again
  5  the provider refuses (sign-in)""",
    sort_key=6,
)
app.command(
    "sluicegate.cli.config:config",
    name="config",
    help="""Print every setting in force and where it is from; secrets are masked.

Flags come before the environment, the environment before sluicegate.toml, and that before the defaults.""",
    help_epilogue="""Examples:
  sluicegate config
  SLUICEGATE_LIMIT=30K sluicegate config --json

Exit codes:
  0  shown
  2  a setting is unknown or wrong""",
    sort_key=7,
)

app.command(
    "sluicegate.cli.init:init",
    name="init",
    usage="Usage: sluicegate init [FILE] [OPTIONS]",
    help="""Write a settings file with every setting, its meaning and its default, commented out.

It is found without a flag where it is called sluicegate.toml and commands are started in its folder.""",
    help_epilogue="""Examples:
  sluicegate init
  sluicegate init /etc/sluicegate.toml

Exit codes:
  0  written
  2  it is there already, or cannot be written""",
    sort_key=8,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: The words after the program's name; default: the process's.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("SLUICEGATE_DEBUG", "") not in ("", "0")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail in the middle of a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        result = app(
            [STDIN_WORD if word == "-" else word for word in words],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_CTRL_C
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else EXIT_USAGE
    except CycloptsError as error:
        _complain(f"error: {error}\nSee: {_help_of(words)}")
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - the edge of the program: everything ends in a sentence and a code
        return _failed(error, debug=debug)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _failed(error: Exception, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, SluicegateError):
        # A stop that was asked for is no error.
        _complain(str(error) if isinstance(error, Interrupted) else f"error: {_sentence(error)}")
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(f"error: {where}{error.strerror}. Nothing is lost: put it right, and the same command goes on")
        return EXIT_USAGE
    _complain(
        f"error: this should not happen: {type(error).__name__}: {error}\n"
        "It is a fault of Sluicegate; what was submitted is on record, and the same command goes on. Please report it "
        "in the issue tracker, with the traceback that --debug (or SLUICEGATE_DEBUG=1) shows."
    )
    return EXIT_UNEXPECTED


def _sentence(error: SluicegateError) -> str:
    if not isinstance(error, BackendError):
        return str(error)
    said = str(error).rstrip(".")
    return f"the provider did not do what was asked: {said}. Check the network and the address, and try again"


_OF_THE_MACHINE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOENT}
)
"""Errors of disks, folders and rights: the person's to solve, with the system's own sentence."""


def _help_of(words: Sequence[str]) -> str:
    """The nearest command's ``--help``."""
    known: Any = app
    path = ["sluicegate"]
    for word in words:
        try:
            known = known[word]
        except (KeyError, ImportError):
            break
        path.append(word)
    return " ".join([*path, "--help"])


def _complain(text: str) -> None:
    from sluicegate.cli.output import complain

    complain(text)


def _silence() -> None:
    from sluicegate.cli.output import silence

    silence()


if __name__ == "__main__":
    sys.exit(main())
