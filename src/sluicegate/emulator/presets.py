"""Accounts and services by name, each with where its numbers come from (F§n: the project's sheet of facts).

Limits and times are presets of their own: ``--preset azure-30k --preset azure-sample-times``. A time says what was
reported once, not what is promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sluicegate.emulator.config import LongLimit
from sluicegate.errors import UsageError

K, M, B = 10**3, 10**6, 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Account fields with a name.

    Attributes:
        imitates: What, in words. ``source``: where that is written, with its date.
    """

    imitates: str
    source: str
    fields: dict[str, Any]


_AZURE_TABLE = "Azure OpenAI, Batch quota and limits, 2026 (F§3.2)"
_QA = "Microsoft Q&A 2285577: a GlobalBatch deployment left at its default capacity (F§3.4)"
_OPENAI_MODELS = "OpenAI, model pages, batch queue limits, 2026 (F§3.5)"


def _azure(limit: int, imitates: str, source: str = _AZURE_TABLE, **more: Any) -> Preset:
    return Preset(imitates=imitates, source=source, fields={"dialect": "azure", "limit": limit, **more})


def _openai(
    tier: int, big: int, mini: int, gpt5_mini: int, frontier: int, research: int, long: int, long_mini: int
) -> Preset:
    limits = (
        *((name, big) for name in ("gpt-4o", "gpt-4.1", "gpt-5-pro", "gpt-5.2-pro")),
        *((name, mini) for name in ("gpt-4o-mini", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-5-nano", "gpt-5.4-nano")),
        *((name, gpt5_mini) for name in ("gpt-5-mini", "gpt-5.6-luna")),
        *(
            (name, frontier)
            for name in ("gpt-5.4", "gpt-5.5", "gpt-5.6-sol", "gpt-6-astra", "gpt-6-sol", "gpt-5.2-codex")
        ),
        *((name, research) for name in ("o3-deep-research", "o4-mini-deep-research")),
        *((("text-embedding-3", 3 * M),) if tier == 1 else ()),
    )
    long_limits = (
        *(LongLimit(name, 128 * K, long) for name in ("gpt-4.1", "gpt-5.2-pro")),
        LongLimit("gpt-4.1-mini", 128 * K, long_mini), LongLimit("gpt-5.5", 272 * K, long_mini),
    )  # fmt: skip
    return Preset(
        imitates=f"an OpenAI organisation of usage tier {tier}; models without a published limit have that of gpt-4.1",
        source=_OPENAI_MODELS,
        fields={"dialect": "openai", "limit": big, "model_limits": limits, "long_limits": long_limits},
    )


PRESETS: Final[dict[str, Preset]] = {
    # limits
    "azure-30k": _azure(30 * K, "a deployment made with the default slider, in a region that fails late", _QA),
    "azure-30k-fail-fast": _azure(
        30 * K, "the same in Sweden Central, which refuses at create", f"{_QA}; regions F§5.2", region="swedencentral"
    ),
    "azure-50k": _azure(50 * K, "a deployment made with the default slider", "Microsoft Q&A 5572494 (F§4.1)"),
    "azure-msdn": _azure(90 * K, "gpt-4.1 in an MSDN subscription"),
    "azure-credit-card": _azure(50 * M, "gpt-4.1 in a subscription paid monthly by credit card"),
    "azure-default": _azure(200 * M, "gpt-4.1 in a default subscription"),
    "azure-5b": _azure(5 * B, "gpt-4.1 under an Enterprise Agreement"),
    "azure-15b": _azure(15 * B, "gpt-4.1-mini under an Enterprise Agreement"),
    "openai-tier1": _openai(1, 90 * K, 2 * M, 5 * M, 1_500 * K, 200 * K, 2 * M, 5 * M),
    "openai-tier2": _openai(2, 1_350 * K, 20 * M, 20 * M, 3 * M, 300 * K, 20 * M, 40 * M),
    "openai-tier3": _openai(3, 50 * M, 40 * M, 40 * M, 100 * M, 500 * K, 40 * M, 80 * M),
    "openai-tier4": _openai(4, 200 * M, 1 * B, 1 * B, 200 * M, 2 * M, 100 * M, 200 * M),
    "openai-tier5": _openai(5, 5 * B, 15 * B, 15 * B, 15 * B, 10 * M, 1 * B, 2 * B),
    # times
    "azure-sample-times": Preset(
        imitates="Microsoft's sample of three lines: 365 s, 677 s, 768 s after its create",
        source="Azure OpenAI, batch with Python, sample output (F§2.2)",
        fields={"validating_s": 365.0, "start_s": 312.0, "finalizing_s": 91.0, "rate": 0.0},
    ),
    "azure-2024-times": Preset(
        imitates="the walkthrough of July 2024: one minute, three, four",
        source="Azure OpenAI, batch with Python, July 2024 (F§2.2)",
        fields={"validating_s": 60.0, "start_s": 120.0, "finalizing_s": 60.0, "rate": 0.0},
    ),
    "azure-tailed-times": Preset(
        imitates="the samples' medians with tails: most batches in minutes, a few in hours; the tail is a choice",
        source="medians F§2.2; stuck jobs Q&A 2237708 and 2203082 (F§6); sigma 1.0 is not measured",
        fields={
            "validating_s": 297.0, "start_s": 146.0, "finalizing_s": 94.0, "rate": 0.0, "delays": "lognormal",
            "spread": 1.0,
        },
    ),
    "azure-blob-times": Preset(
        imitates="the sample with blob input: still validating after two minutes; what comes after is a choice",
        source="Azure OpenAI, batch with blob storage (F§2.2)",
        fields={"validating_s": 120.0, "start_s": 120.0, "finalizing_s": 60.0, "rate": 0.0},
    ),
    "azure-user-times": Preset(
        imitates="a user's two lines: about ten minutes in all; how they divide is a choice",
        source="Microsoft Q&A 2203082 (F§2.2)",
        fields={"validating_s": 300.0, "start_s": 240.0, "finalizing_s": 60.0, "rate": 0.0},
    ),
    "openai-sample-times": Preset(
        imitates="the reference's sample of 100 lines: 5 s, six hours, 30 s",
        source="OpenAI API reference, Batch object (F§2.2)",
        fields={"validating_s": 5.0, "start_s": 21_595.0, "finalizing_s": 30.0, "rate": 0.0},
    ),
    "openai-ci-times": Preset(
        imitates="tiny batches in continuous integration: ten to eleven minutes",
        source="reports of users (F§2.2)",
        fields={
            "validating_s": 5.0, "start_s": 610.0, "finalizing_s": 10.0, "rate": 0.0, "delays": "lognormal",
            "spread": 0.05,
        },
    ),
    # services
    "work-bound": Preset(
        imitates="a service whose tokens per second are shared by all batches; the rate is a choice",
        source="none: not measured; the rate of the makespan benchmark (docs/benchmarks.md)",
        fields={"discipline": "shared", "rate": 6_000.0},
    ),
    "slot-bound": Preset(
        imitates="four batches at once, each at its own pace, the others wait; the numbers are a choice",
        source="none: not measured",
        fields={"discipline": "slots", "slots": 4, "rate": 6_000.0},
    ),
    "day-and-night": Preset(
        imitates="a work-bound service at a third of its rate in the daytime of the Americas; the numbers are a choice",
        source="none: not measured",
        fields={"discipline": "shared", "rate": 6_000.0, "rhythm": ((0.0, 1 / 3), (5.0, 1.0), (13.0, 1 / 3))},
    ),
    "dead": Preset(
        imitates="a deployment that accepts work and does none, as jobs at 0 of 15 for hours",
        source="OpenAI community 1382244, 1255766 (F§6)",
        fields={"start_s": float("inf")},
    ),
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """The account fields of a preset.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return dict(PRESETS[name].fields)
