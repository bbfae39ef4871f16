"""``--max-cost`` against the emulator: what is spent at the end."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks import workload

from sluicegate import api
from sluicegate.errors import CostLimitExceeded
from sluicegate.service import runs
from sluicegate.settings import Settings
from sluicegate.testing import RunningEmulator, local_emulator
from sluicegate.wiring import context

FAST: dict[str, Any] = {"limit": "20K", "rate": 40000, "validating": "0.1s", "start": "0.1s", "finalizing": "0.1s"}


def settings(provider: RunningEmulator, folder: Path, **more: Any) -> Settings:
    base = {"base_url": provider.openai_url, "api_key": "any", "state": str(folder / "state")}
    return Settings.load(base | {"poll": "0.1s", "limit": "20K"} | more)


async def spent(given: Settings) -> float:
    async with context(given) as ctx:
        (run,) = await ctx.store.transact(lambda tx: tx.runs())
        parts = await ctx.store.transact(lambda tx: tx.parts(run=run.id))
        return runs.cost_of(ctx, run, parts) or 0.0


@pytest.mark.parametrize("expected", [None, "0"])
async def test_the_most_that_may_be_spent_is_kept_though_nobody_said_how_long_answers_are(
    tmp_path: Path, expected: str | None
) -> None:
    """The input costs 0.015 and the answers more than that: it stops near the bound, and goes on with a higher one."""
    source = tmp_path / "requests.jsonl"
    workload.write(source, requests=200, tokens=15_000, largest=200)
    with local_emulator(**FAST) as provider:
        given = settings(provider, tmp_path, max_cost="0.02", expected_output_tokens=expected)
        with pytest.raises(CostLimitExceeded, match="max-cost"):
            await api.run_async(str(source), settings=given)
        assert 0.5 * 0.02 <= await spent(given) <= 1.1 * 0.02

        done = await api.run_async(str(source), settings=settings(provider, tmp_path))
        assert (done.completed, provider.report()["executed_again"]) == (200, 0)
        assert (done.cost or 0.0) > 1.5 * 0.02
