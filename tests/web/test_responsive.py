"""The event loop belongs to those who ask: what takes time in proportion to a file is done elsewhere."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.service import prepare
from sluicegate.service.intake import CopiedInput
from sluicegate.settings import Settings
from sluicegate.wiring import context

LINES = 100_000
LOOP_MOST = 0.02
"""The loop's share of the CPU that a check takes: half a hundredth. With the joining of ranges and the sums on it, which come
in a few long pieces, it was more than a twentieth."""


async def test_a_check_of_many_short_lines_leaves_the_loop_alone(tmp_path: Path) -> None:
    """Nearly all of the CPU time is that of other threads, from the scan to the run in the rows."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}
    line = json.dumps({"custom_id": "NUMBER", "method": "POST", "url": "/v1/chat/completions", "body": body})
    settings = Settings(azure_endpoint="http://127.0.0.1:1", azure_api_key="k", state=tmp_path)  # type: ignore[arg-type]
    async with context(settings) as ctx:
        path = ctx.blobs.path(prepare.input_key("d"))
        path.write_text("".join(f"{line.replace('NUMBER', str(i))}\n" for i in range(LINES)))
        copied = [CopiedInput(sha256="d", bytes=path.stat().st_size)]
        request = prepare.Request(inputs=("in.jsonl",), output=tmp_path / "out", errors=tmp_path / "err", tenant="a")
        loop, whole = time.thread_time(), time.process_time()
        inspection = await prepare.check(ctx, request, copied, CheckRules(dialect=Dialect.AZURE), None)
        report = await ctx.workers.blocking(partial(inspection.to_json, limit=None, dialect=Dialect.AZURE))
        run = await prepare.enter(ctx, request, copied, inspection, "d")
        loop, whole = time.thread_time() - loop, time.process_time() - whole

    assert report["requests"] == run.requests == LINES
    assert loop < LOOP_MOST * whole, f"{loop:.2f} s of {whole:.2f} s were on the loop"
