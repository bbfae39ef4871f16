"""A real model behind the emulator: `python -m benchmarks.real_answers http://host/v1 requests.jsonl [HOW_MANY]`.

Any OpenAI-compatible server answers each line, for instance llama.cpp's with a small model on the CPU; the requests go
through `sluicegate run`. Ends with exit code 1 unless every request has its own answer, in input order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from sluicegate.testing import emulator


def main(url: str, requests: Path, many: int) -> int:
    """One run, its figures."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as name:
        folder = Path(name)
        source, output = folder / "requests.jsonl", folder / "results.jsonl"
        with requests.open(encoding="utf-8") as file:
            source.write_text("".join(islice(file, many)), encoding="utf-8")
        began = time.monotonic()
        with emulator(answers=url, limit="10K", validating="1s", start="0s", finalizing="0s") as provider:
            command = [
                sys.executable, "-m", "sluicegate", "run", str(source), "-o", str(output), "--azure-endpoint", provider.url,
                "--api-version", "2024-10-21", "--poll", "1s", "--limit", "10K", "--state", str(folder / "state"),
            ]  # fmt: skip
            done = subprocess.run(command, env=os.environ | {"AZURE_OPENAI_API_KEY": "any"}, check=False)
            report = provider.report()
        wanted = [json.loads(line)["custom_id"] for line in source.open(encoding="utf-8")]
        lines = [json.loads(line) for line in output.open(encoding="utf-8")] if output.exists() else []
        answers = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
        complete = [line["custom_id"] for line in lines] == wanted
        print(
            f"{len(lines)} of {len(wanted)} answered{' in order' if complete else ''}, {len(set(answers))} different answers, "
            f"{report['batches']} batches, {report['executed_again']} executed again, refusals {report['refusals']}, "
            f"exit code {done.returncode}, {time.monotonic() - began:.0f} s\n{answers[:1]}"
        )
        return 0 if complete and done.returncode == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else sys.maxsize))
