"""How fast the check counts, against what people write: `python -m benchmarks.check_speed [BYTES]`.

*Naive* is a script with ``json.loads`` and ``tiktoken.encode`` per line. Both run as processes of their own, interleaved,
five times; medians are compared, and the token totals must be equal. Text: sources and docstrings of the standard library
(but for one file of letters that the faster counter leaves to the slower one), about two thousand characters a request.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from sluicegate.adapters.counters import LONG_S

NAIVE = """
import json, sys
from sluicegate import vocabulary
coder = vocabulary.encoding("o200k_base")
total = 0
for line in open(sys.argv[1], encoding="utf-8"):
    total += 3
    for message in json.loads(line)["body"]["messages"]:
        total += 3
        for value in message.values():
            total += len(coder.encode(value, disallowed_special=()))
print(total)
"""


def write(path: Path, size: int) -> None:
    """About ``size`` bytes of requests with real text, each another."""
    dice = random.Random(3)
    sources = [
        text
        for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
        if "site-packages" not in file.parts
        for text in [file.read_text(encoding="utf-8", errors="replace")]
        if len(text) > 4_000 and LONG_S not in text
    ]
    with path.open("w", encoding="utf-8") as out:
        number = 0
        while out.tell() < size:
            text = dice.choice(sources)
            start = dice.randrange(len(text) - 3_200)
            content = text[start : start + dice.randint(500, 3_200)]
            messages = [{"role": "system", "content": "Explain."}, {"role": "user", "content": content}]
            body = {"model": "gpt-4.1", "messages": messages}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            number += 1


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds and output of a process."""
    before = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return time.monotonic() - before, done.stdout


def main(size: int, rounds: int) -> None:
    """Print the ratio of the medians."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
        path = Path(folder) / "requests.jsonl"
        write(path, size)
        naive, ours = [], []
        for _ in range(rounds):
            seconds, total = timed([sys.executable, "-c", NAIVE, str(path)])
            naive.append(seconds)
            seconds, report = timed([sys.executable, "-m", "sluicegate", "check", "--json", "--offline", str(path)])
            ours.append(seconds)
            assert json.loads(report)["tokens"] == int(total), "the totals differ"
        a, b = statistics.median(naive), statistics.median(ours)
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs: {path.stat().st_size / 1e6:,.0f} MB, {int(total):,} tokens: "
            f"naive {a:.2f} s, check {b:.2f} s, {a / b:.2f} times as fast"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
