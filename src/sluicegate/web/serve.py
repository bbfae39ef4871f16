"""Keep the gateway up until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import uvicorn

from sluicegate.adapters.remote_blobs import HttpBlobs
from sluicegate.adapters.workers import ProcessWorkers
from sluicegate.checking import rules_of
from sluicegate.core.blob_urls import parse_prefixes
from sluicegate.core.report import Event
from sluicegate.errors import StateUnusable, UsageError
from sluicegate.server import Server
from sluicegate.service import keys
from sluicegate.service.desk import DESK, Desk, DeskPolicy
from sluicegate.settings import Settings
from sluicegate.web import logs
from sluicegate.web.app import make_app
from sluicegate.web.auth import Gatekeeper
from sluicegate.web.entra import Entra
from sluicegate.web.limits import MODELS_MOST, check_fetched
from sluicegate.web.metrics import Metrics
from sluicegate.web.protocol import BACKLOG, TOLD_MOST, Listener, TimedProtocol, affordable
from sluicegate.web.state import Gateway
from sluicegate.web.together import Together
from sluicegate.web.watch import Watch
from sluicegate.wiring import context

LOG = logging.getLogger("sluicegate.work")
KEEP_ALIVE_S = 75
STOP_S = 20


def serve(settings: Settings, *, host: str, port: int, ready: Callable[[str, str | None], None]) -> None:
    """Serve until SIGINT or SIGTERM, then stop at a safe point.

    Args:
        port: 0 takes a free one.
        ready: Called with the URL once connections are accepted, and with a first key if there was none.

    Raises:
        UsageError: the address cannot be listened on, a TLS file not read, or no provider is set.
        StateUnusable: another gateway serves this data folder.
    """
    os.umask(0o077)  # clients' files are nobody else's on this machine
    for name in ("gateway_tls_cert", "gateway_tls_key"):
        path = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            raise UsageError(f"{name}: {path} cannot be read; name a PEM file that this user may read")
    try:
        parse_prefixes(settings.gateway_blobs)
    except ValueError as error:
        raise UsageError(f"gateway_blobs: {error}") from error
    if settings.gateway_tls_key is not None and settings.gateway_tls_cert is None:
        raise UsageError("gateway_tls_key is set without gateway_tls_cert; set both")
    try:
        listener = Listener(socket.create_server((host, port), backlog=BACKLOG))
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from error
    asyncio.run(_serve(settings, listener, host, ready))


async def _serve(settings: Settings, listener: Listener, host: str, ready: Callable[[str, str | None], None]) -> None:
    logs.configure(settings.gateway_log)
    connections_max = affordable(settings.gateway_connections_max)
    if connections_max < settings.gateway_connections_max:
        LOG.warning(
            "gateway_connections_max is %d, but this process may not open enough files: %d connections are served at once; "
            "raise its limit (ulimit -n, systemd's LimitNOFILE)", settings.gateway_connections_max, connections_max,
        )  # fmt: skip
    listener.connections_max = connections_max + min(TOLD_MOST, max(1, connections_max // 3))
    metrics = Metrics()
    desk: Desk | None = None

    def listen(event: Event) -> None:
        metrics.happened(event)
        if desk is not None:
            desk.heard(event)
        batch = desk.batch_of(event.run) if desk is not None else None
        said = {"batch": batch, "run": event.run, "part": event.part, "deployment": event.deployment}
        LOG.info("%s", event.kind.value, extra={logs.FIELDS: said})

    entra = Entra(settings) if settings.gateway_entra_issuer else None
    async with context(settings, listen=listen, many=True) as ctx:
        if not ctx.lock.acquire(DESK):
            raise StateUnusable(
                f"another gateway serves the data folder {settings.state}; stop it, or name another --state"
            )
        # So that one person can begin: a key of the tenant "default" if there is none at all.
        first = await keys.create(ctx.store, ctx.ids, ctx.clock, tenant="default", only_first=True)
        key = first["key"] if first else None
        policy = DeskPolicy(
            active_max=settings.gateway_active_max,
            expire=settings.gateway_due == "expire",
            strict=settings.gateway_strict,
            keep_s=settings.gateway_keep,
            blob_bytes_max=settings.gateway_file_bytes_max,
        )
        checkers = ProcessWorkers(settings.workers or None)
        rules = replace(rules_of(settings, ctx.backend.dialect), names=settings.gateway_models,
                        models_most=MODELS_MOST)  # fmt: skip
        desk = Desk(ctx, rules, policy, checkers, _remote(settings), partial(check_fetched, settings))
        gatekeeper = Gatekeeper(ctx.store, entra)
        gateway = Gateway(
            ctx=ctx, desk=desk, settings=settings, gatekeeper=gatekeeper, metrics=metrics, together=Together(ctx.store),
            watch=Watch(ctx, desk),
        )  # fmt: skip
        app = make_app(gateway)
        config = uvicorn.Config(
            app, http=TimedProtocol, limit_concurrency=connections_max, backlog=BACKLOG,
            log_config=None, log_level="warning", access_log=False, lifespan="off", server_header=False,
            proxy_headers=bool(settings.gateway_proxies), forwarded_allow_ips=settings.gateway_proxies or None,
            ssl_certfile=settings.gateway_tls_cert, ssl_keyfile=settings.gateway_tls_key,
            timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=STOP_S, h11_max_incomplete_event_size=65_536,
        )  # fmt: skip
        url = f"{'https' if settings.gateway_tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"
        server = _Server(config, lambda _: ready(url, key), desk.stop)
        await desk.begin()
        turning = asyncio.create_task(desk.run())
        watching = asyncio.create_task(gateway.watch.run())
        try:
            await server.serve(sockets=[listener])
        finally:
            watching.cancel()
            desk.stop()
            await turning
            await checkers.close()


def _remote(settings: Settings) -> HttpBlobs | None:
    prefixes = parse_prefixes(settings.gateway_blobs)
    sas = settings.gateway_blob_sas.get_secret_value() if settings.gateway_blob_sas is not None else ""
    return HttpBlobs(prefixes, sas=sas, private=settings.gateway_blobs_private) if prefixes else None


class _Server(Server):
    """Stops the loops at a safe point while it ends."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[Server], None], stopping: Callable[[], None]) -> None:
        super().__init__(config, ready)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
