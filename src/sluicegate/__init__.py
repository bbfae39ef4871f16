"""Sluicegate: any amount of work through the Batch API, never over the enqueued-token limit.

The names here are loaded when they are first used, so that ``import sluicegate`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sluicegate.api import (
        check,
        check_async,
        quota,
        quota_async,
        run,
        run_async,
        submit,
        submit_async,
    )
    from sluicegate.core.report import Event, EventKind, Progress, QuotaRow, RunResult
    from sluicegate.errors import (
        AuthenticationFailed,
        CostLimitExceeded,
        DeploymentNotFound,
        InputChanged,
        InputRefused,
        Interrupted,
        ProviderRefused,
        SluicegateError,
        StateUnusable,
        UsageError,
    )
    from sluicegate.settings import Settings

_HOMES = {
    "sluicegate.api": (
        "check", "check_async", "quota", "quota_async", "run", "run_async", "submit", "submit_async",
    ),
    "sluicegate.core.report": ("Event", "EventKind", "Progress", "QuotaRow", "RunResult"),
    "sluicegate.errors": (
        "AuthenticationFailed", "CostLimitExceeded", "DeploymentNotFound", "InputChanged", "InputRefused",
        "Interrupted", "ProviderRefused", "SluicegateError", "StateUnusable", "UsageError",
    ),
    "sluicegate.settings": ("Settings",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AuthenticationFailed", "CostLimitExceeded", "DeploymentNotFound", "Event", "EventKind", "InputChanged",
    "InputRefused", "Interrupted", "Progress", "ProviderRefused", "QuotaRow", "RunResult", "Settings",
    "SluicegateError", "StateUnusable", "UsageError", "__version__", "check", "check_async", "quota", "quota_async",
    "run", "run_async", "submit", "submit_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sluicegate' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
