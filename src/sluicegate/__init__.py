"""Sluicegate: any amount of work through the Batch API, never over the enqueued-token limit.

The names here are loaded when they are first used, so that ``import sluicegate`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sluicegate.api import (
        batches_cancel,
        batches_cancel_async,
        batches_forget,
        batches_forget_async,
        batches_list,
        batches_list_async,
        batches_salvage,
        batches_salvage_async,
        batches_show,
        batches_show_async,
        cancel_run,
        cancel_run_async,
        check,
        check_async,
        prune,
        prune_async,
        quota,
        quota_async,
        quota_pause,
        quota_pause_async,
        quota_resume,
        quota_resume_async,
        quota_set_limit,
        quota_set_limit_async,
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
        "batches_cancel", "batches_cancel_async", "batches_forget", "batches_forget_async", "batches_list",
        "batches_list_async", "batches_salvage", "batches_salvage_async", "batches_show", "batches_show_async",
        "cancel_run", "cancel_run_async", "check", "check_async", "prune", "prune_async", "quota", "quota_async",
        "quota_pause", "quota_pause_async", "quota_resume", "quota_resume_async", "quota_set_limit",
        "quota_set_limit_async", "run", "run_async", "submit", "submit_async",
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
    "SluicegateError", "StateUnusable", "UsageError", "__version__", "batches_cancel", "batches_cancel_async",
    "batches_forget", "batches_forget_async", "batches_list", "batches_list_async", "batches_salvage",
    "batches_salvage_async", "batches_show", "batches_show_async", "cancel_run", "cancel_run_async", "check",
    "check_async", "prune", "prune_async", "quota", "quota_async", "quota_pause", "quota_pause_async",
    "quota_resume", "quota_resume_async", "quota_set_limit", "quota_set_limit_async", "run", "run_async", "submit",
    "submit_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sluicegate' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
