"""Settings → object graph: the one module that knows every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from sluicegate.adapters.backend_batch import Timeouts
from sluicegate.adapters.blobs import FolderBlobs
from sluicegate.adapters.circuit import Circuit
from sluicegate.adapters.clock import SystemClock, SystemIds
from sluicegate.adapters.connect import connect
from sluicegate.adapters.counters import default_counter
from sluicegate.adapters.lock import FileLock
from sluicegate.adapters.workers import ThreadWorkers
from sluicegate.core.limits import limits_of
from sluicegate.core.report import Event
from sluicegate.core.types import Dialect
from sluicegate.ports import Backend, Clock, Ids, Store
from sluicegate.service.context import Context, Policy
from sluicegate.settings import Settings


def policy_of(settings: Settings, dialect: Dialect) -> Policy:
    """The service's policy: settings, and the provider's limits where a setting is not given."""
    limits = limits_of(dialect)
    return Policy(
        poll_s=settings.poll, poll_max_s=max(settings.poll_max, settings.poll), margin=settings.margin,
        attempts=settings.attempts, requests_max=settings.requests_max or limits.requests_per_batch,
        bytes_max=settings.bytes_max, files_max=settings.files_max or limits.files or 1_000_000,
        creates_per_hour=settings.creates_per_hour or limits.creates_per_hour,
        stuck_validating_s=settings.stuck_validating, stuck_in_progress_s=settings.stuck_in_progress,
        stuck_resubmit=settings.stuck_action == "resubmit", release_lag_s=settings.release_lag,
        file_expiry_s=None if settings.file_expiry is None else round(settings.file_expiry),
        keep_provider_files=settings.keep_provider_files, max_cost=settings.max_cost,
        expected_output_tokens=settings.expected_output_tokens, models=dict(settings.models),
        prices={name: price.all for name, price in settings.prices.items()},
    )  # fmt: skip


def backend_of(settings: Settings, clock: Clock) -> Backend:
    """The provider that the settings name.

    Raises:
        UsageError: no credentials, or credentials of two providers.
    """
    return connect(
        now=clock.now, base_url=settings.base_url, api_key=_revealed(settings.api_key),
        azure_endpoint=settings.azure_endpoint, azure_api_key=_revealed(settings.azure_api_key),
        azure_ad_token=_revealed(settings.azure_ad_token), api_version=settings.api_version,
        organization=settings.organization, project=settings.project, use_entra=settings.use_entra,
        dialect=None if settings.dialect == "auto" else Dialect(settings.dialect),
        timeouts=Timeouts(
            read_s=min(60.0, settings.timeout), create_s=min(300.0, settings.timeout),
            stall_s=min(300.0, settings.timeout),
        ),
        azure_subscription=settings.azure_subscription, azure_resource_group=settings.azure_resource_group,
    )  # fmt: skip


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


@asynccontextmanager
async def context(
    settings: Settings, *, listen: Callable[[Event], None] | None = None, backend: Backend | None = None,
    many: bool = False,
) -> AsyncIterator[Context]:  # fmt: skip
    """The object graph of one command, closed at the end.

    Args:
        many: Many runs at once: a provider that does not answer is left alone by all of them together.
    """
    from sluicegate.adapters.store import SqlStore

    state = settings.state
    blobs = FolderBlobs(state)
    store = SqlStore(state / "sluicegate.sqlite3")
    workers = ThreadWorkers(settings.workers or None)
    ids = SystemIds()
    clock = SystemClock()
    connected = backend or backend_of(settings, clock)
    if many:
        connected = Circuit(connected, clock.now)
    graph = Context(
        clock=clock, ids=ids, store=store, blobs=blobs, workers=workers, lock=FileLock(state / "locks"),
        backend=connected, counter=default_counter, policy=policy_of(settings, connected.dialect),
        instance=ids.new("instance"), listen=listen or (lambda event: None),
    )  # fmt: skip
    try:
        yield graph
    finally:
        await connected.close()
        await workers.close()
        await store.close()


@asynccontextmanager
async def rows(settings: Settings) -> AsyncIterator[tuple[Store, Ids, Clock]]:
    """The rows alone, for commands that need no provider."""
    from sluicegate.adapters.store import SqlStore

    FolderBlobs(settings.state)
    store = SqlStore(settings.state / "sluicegate.sqlite3")
    try:
        yield store, SystemIds(), SystemClock()
    finally:
        await store.close()
