"""``GET /metrics``: every name that Prometheus sees, in one place, and where its number is from (docs/metrics.md).

What our rows say is read when it is asked for; what happens is counted as it happens and begins at zero with the process.
No label has a value that clients choose: no tenants, no ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from sluicegate.core.report import Event, EventKind, QuotaRow

__all__ = ["CONTENT_TYPE_LATEST", "NAMES", "Metrics", "Reading"]

QUOTA: Final = {
    "sluicegate_limit_tokens": ("limit", "Enqueued-token limit that is believed in."),
    "sluicegate_reserved_tokens": ("reserved", "Reserved for parts that are being submitted."),
    "sluicegate_held_tokens": ("held", "Held by provider batches of ours."),
    "sluicegate_foreign_tokens": ("foreign", "Estimated for batches of others on the deployment."),
    "sluicegate_headroom_tokens": ("headroom", "Limit less reserved, held and foreign."),
    "sluicegate_waiting_tokens": ("waiting", "Estimated tokens of requests that wait for room."),
    "sluicegate_provider_batches": (
        "provider_batches",
        "Batches at the provider that have not ended, ours and others'.",
    ),
    "sluicegate_calibration_ratio": ("calibration", "The provider's count of tokens per token of our estimate."),
    "sluicegate_list_read_timestamp_seconds": ("observed_at", "When the provider's list was last read, Unix time."),
}
"""Gauges per deployment: name → (the field of a quota row, help)."""

STATE: Final = {
    "sluicegate_client_batches": (("status",), "Batches of clients that are kept, by status."),
    "sluicegate_parts": (("stage",), "Parts that have not ended, by stage."),
    "sluicegate_turn_age_seconds": ((), "Since the gateway's loop last turned."),
    "sluicegate_drivers": (("state",), "Batches that are driven, by whether their loop turns (turning, stalled)."),
    "sluicegate_not_ready": (("what",), "1 for each thing that /readyz says is wrong."),
}
"""Gauges of the gateway itself: name → (labels, help)."""

COUNTED: Final = {
    "sluicegate_events_total": (("kind",), "What happened to the work, by kind (docs/python.md, events)."),
    "sluicegate_requests_answered_total": ((), "Requests that came home with an answer."),
    "sluicegate_requests_failed_total": ((), "Requests that came home with an error."),
    "sluicegate_requests_salvaged_total": ((), "Requests that came home without a lasting answer and were sent again."),
    "sluicegate_refusals_total": (("deployment",), "Parts that the provider refused by its limit."),
    "sluicegate_http_requests_total": (("method", "route", "status"), "Answered HTTP requests."),
    "sluicegate_http_received_bytes_total": ((), "Bytes of request bodies."),
}
"""Counters: name → (labels, help)."""

SECONDS: Final = {"sluicegate_http_request_seconds": (("method", "route"), "Time to answer an HTTP request.")}
"""Histograms."""

OTHER: Final = "other"
"""The label of all deployments together that only clients have named so far; only sums make sense of them."""

SUMMED: Final = frozenset({"reserved", "held", "waiting"})

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

NAMES: Final = {name: help_ for name, (_, help_) in (QUOTA | STATE | COUNTED | SECONDS).items()}
"""Every name of ours with its help; the process's own (``process_…``, ``python_info``) come beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The gateway's state at one scrape; counts by the one label of :data:`STATE`.

    Attributes:
        named: Deployments that the settings name or the provider has taken work for: they have a label of their own.
    """

    quotas: list[QuotaRow]
    batches: dict[str, int]
    parts: dict[str, int]
    turn_age_s: float
    drivers: dict[str, int]
    named: frozenset[str] = frozenset()
    wrong: Iterable[str] = field(default_factory=list)


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # Prometheus knows when a counter began by itself
        self._registry = CollectorRegistry()
        self._named: frozenset[str] = frozenset()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._counters = {
            name: Counter(name, help_, labels, registry=self._registry) for name, (labels, help_) in COUNTED.items()
        }
        self._seconds = {
            name: Histogram(name, help_, labels, buckets=BUCKETS, registry=self._registry)
            for name, (labels, help_) in SECONDS.items()
        }

    def happened(self, event: Event) -> None:
        """Count an event of the service."""
        self._counters["sluicegate_events_total"].labels(event.kind.value).inc()
        if event.kind is EventKind.COLLECTED:
            for what in ("answered", "failed", "salvaged"):
                self._counters[f"sluicegate_requests_{what}_total"].inc(int(event.fields.get(what) or 0))
        if event.kind is EventKind.REFUSED:
            self._counters["sluicegate_refusals_total"].labels(self._label(event.deployment or "")).inc()

    def _label(self, deployment: str) -> str:
        return deployment if deployment in self._named else OTHER

    def answered(self, *, method: str, route: str, status: int, seconds: float, received: int) -> None:
        """Count an HTTP request; ``route`` is the template of its path, never the path."""
        self._counters["sluicegate_http_requests_total"].labels(method, route, f"{status // 100}xx").inc()
        self._counters["sluicegate_http_received_bytes_total"].inc(received)
        self._seconds["sluicegate_http_request_seconds"].labels(method, route).observe(seconds)

    def text(self, reading: Reading) -> bytes:
        """Everything in Prometheus' text format."""
        self._named = reading.named
        now = CollectorRegistry()
        now.register(_Families(list(_families(reading))))
        return generate_latest(now) + generate_latest(self._registry)


class _Families:
    """A collector of what was read a moment ago."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _families(reading: Reading) -> Iterator[Metric]:
    for name, (column, help_) in QUOTA.items():
        family = GaugeMetricFamily(name, help_, labels=("deployment",))
        others = 0.0
        for row in reading.quotas:
            value = getattr(row, column)
            if value is not None and row.deployment in reading.named:
                family.add_metric((row.deployment,), float(value))
            elif column in SUMMED:
                others += float(value)
        if column in SUMMED and any(row.deployment not in reading.named for row in reading.quotas):
            family.add_metric((OTHER,), others)
        yield family
    values: dict[str, dict[str, float]] = {
        "sluicegate_client_batches": dict(reading.batches), "sluicegate_parts": dict(reading.parts),
        "sluicegate_turn_age_seconds": {"": reading.turn_age_s}, "sluicegate_drivers": dict(reading.drivers),
        "sluicegate_not_ready": dict.fromkeys(reading.wrong, 1.0),
    }  # fmt: skip
    for name, (labels, help_) in STATE.items():
        family = GaugeMetricFamily(name, help_, labels=labels)
        for label, number in values[name].items():
            family.add_metric((label,) if labels else (), number)
        yield family


def markdown() -> str:
    """docs/metrics.md: all names in tables."""
    gauges = {name: (("deployment",), help_) for name, (_, help_) in QUOTA.items()} | STATE
    rows = ["| name | kind | labels | what |", "|---|---|---|---|"]
    for kind, table in (("gauge", gauges), ("counter", COUNTED), ("histogram", SECONDS)):
        for name, (labels, help_) in table.items():
            rows.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '–'} | {help_} |")
    return "\n".join(rows)
