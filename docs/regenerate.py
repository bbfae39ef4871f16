"""Bring the generated parts of the documentation up to date: `python docs/regenerate.py` (`--check` only compares).

The options of each command between `<!-- help:NAME -->` and `<!-- end -->`, the emulator's presets between
`<!-- presets -->` and `<!-- end -->`, the gateway's metrics likewise, and docs/settings.md as a whole.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- help:([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)

METRICS = re.compile(r"(<!-- metrics -->\n).*?(<!-- end -->)", re.DOTALL)
PRESETS = re.compile(r"(<!-- presets -->\n).*?(<!-- end -->)", re.DOTALL)


def presets_table() -> str:
    """The emulator's presets, a row each."""
    from sluicegate.emulator.presets import PRESETS as presets

    rows = [f"| `{name}` | {one.imitates} | {one.source} |" for name, one in presets.items()]
    return "\n".join(["| `--preset` | imitates | source |", "|---|---|---|", *rows])


def help_of(command: str) -> str:
    """What `sluicegate COMMAND --help` prints at 100 columns, without colour."""
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "sluicegate", *command.split(), "--help"], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n")


def pages() -> dict[Path, str]:
    """Every page with generated content, as it should be."""
    from sluicegate.settings import settings_markdown

    wanted = {DOCS / "settings.md": settings_markdown()}
    from sluicegate.web.metrics import markdown

    metrics = DOCS / "metrics.md"
    wanted[metrics] = METRICS.sub(lambda m: f"{m[1]}{markdown()}\n{m[2]}", metrics.read_text(encoding="utf-8"))
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if BLOCK.search(text):
            text = BLOCK.sub(lambda m: f"{m[1]}```\n{help_of(m[2])}\n```\n{m[3]}", text)
            wanted[page] = PRESETS.sub(lambda m: f"{m[1]}{presets_table()}\n{m[2]}", text)
    return wanted


def main(check: bool) -> int:
    """Write the pages, or name those that differ."""
    stale = [page for page, text in pages().items() if not page.exists() or page.read_text(encoding="utf-8") != text]
    for page in stale:
        if check:
            sys.stdout.write(f"{page.name} is not up to date; run python docs/regenerate.py\n")
        else:
            page.write_text(pages()[page], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv))
