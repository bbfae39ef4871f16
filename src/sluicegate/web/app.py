"""The gateway's application: routes of all families, one shape of error per family."""

from __future__ import annotations

import errno
import logging
from functools import partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sluicegate import __version__
from sluicegate.errors import StateUnusable
from sluicegate.web import batches, files, health, imports, models, quota, reference, uploads
from sluicegate.web.access import Access
from sluicegate.web.dialects import PROJECTS, Family, Problem, envelope
from sluicegate.web.state import Gateway

LOG = logging.getLogger("sluicegate.gateway")


def make_app(gateway: Gateway) -> FastAPI:
    """The application that serves ``gateway``."""
    app = FastAPI(
        docs_url=None, redoc_url=None,  # their pages take scripts from elsewhere; ours is below
        title="Sluicegate", version=__version__, summary="The Batch API that queues instead of refusing.",
        exception_handlers={
            Problem: _problem, HTTPException: _http, ClientDisconnect: _gone, StateUnusable: _unusable, OSError: _system,
        },
    )  # fmt: skip
    app.state.gateway = gateway
    app.add_middleware(Access, metrics=gateway.metrics)
    # Routes are tried in this order, and most requests are polls.
    for router in (batches.router, files.router, uploads.router, models.router):
        for family in (Family.OPENAI, Family.AZURE_V1, Family.AZURE):
            app.include_router(router, prefix=family.value, include_in_schema=family is Family.OPENAI)
    for prefix in (Family.AZURE_V1.value, Family.AZURE.value, PROJECTS):
        app.include_router(imports.router, prefix=prefix, include_in_schema=prefix == Family.AZURE_V1.value)
        app.include_router(models.synchronous, prefix=prefix)
    for router in (batches.router, files.router, uploads.router, models.router):
        app.include_router(router, prefix=PROJECTS, include_in_schema=False)
    app.include_router(health.router)
    app.include_router(quota.router)
    app.openapi = partial(reference.document, app)  # type: ignore[method-assign]
    app.add_api_route("/docs", _reference, include_in_schema=False)
    app.add_api_route("/", _to_reference, include_in_schema=False)
    return app


async def _to_reference(request: Request) -> Response:
    """Who opens the address in a browser finds the reference."""
    return RedirectResponse("docs")


async def _reference(request: Request) -> Response:
    """The reference for people."""
    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(reference.page(request.app), headers=policy)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return envelope(request, error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return envelope(request, Problem(405, "405", "This method is not allowed here."))
    return envelope(request, Problem(error.status_code, str(error.status_code), "Resource not found"))


async def _gone(request: Request, error: Exception) -> Response:
    """The client hung up: nobody reads this answer."""
    return envelope(request, Problem(400, "client_disconnected", "The connection was closed."))


async def _unusable(request: Request, error: Exception) -> Response:
    LOG.error("the data folder cannot be used: %s", error)
    return envelope(
        request, Problem(503, "unavailable", "The gateway's storage does not work.", retry=True, after_s=10)
    )


async def _system(request: Request, error: Exception) -> Response:
    """What the machine has too little of; everything else is a defect (:mod:`sluicegate.web.access`)."""
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        LOG.error("the disk is full: %s", error)
        return envelope(
            request, Problem(507, "insufficient_storage", "The gateway's disk is full.", retry=True, after_s=60)
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        LOG.error("no more files can be opened: %s", error)
        text = "The gateway has too many files open."
        return envelope(request, Problem(503, "unavailable", text, retry=True, after_s=10))
    raise error
