"""What clients may name: the model list, and the synchronous calls that are answered as a batch deployment answers them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sluicegate.core import belief
from sluicegate.service import overview
from sluicegate.web.auth import Caller
from sluicegate.web.dialects import Problem, not_found
from sluicegate.web.paging import listing
from sluicegate.web.state import caller_of, gateway_of, json_body

router = APIRouter(tags=["models"])
synchronous = APIRouter(include_in_schema=False)

NO_DEPLOYMENT: Final = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please "
    "wait a moment and try again."
)


async def _names(request: Request, caller: Caller) -> list[str]:
    """The names of the settings, or else the deployments that took work of the caller's tenant."""
    gateway = gateway_of(request)
    if gateway.settings.gateway_models:
        return sorted(gateway.settings.gateway_models)
    resource, configured = gateway.ctx.backend.resource, gateway.configured
    rows = await gateway.ctx.store.read(
        lambda tx: overview.deployments(tx, resource, caller.sees.get("tenant"), configured)
    )
    return [row.name for row in rows if row.name in configured or belief.load(row.belief).exists]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sluicegate"}


@router.get("/models", summary="List models")
async def models(request: Request) -> Response:
    """The names that a line's ``model`` may have."""
    caller = await caller_of(request)
    return JSONResponse(listing([_model(name) for name in await _names(request, caller)], False))


@router.get("/models/{model}", summary="Show a model")
async def model(request: Request, model: str) -> Response:
    """One of ``/v1/models``."""
    caller = await caller_of(request)
    if model not in await _names(request, caller):
        raise not_found(request, "model", model)
    return JSONResponse(_model(model))


@synchronous.post("/chat/completions")
@synchronous.post("/deployments/{deployment}/chat/completions")
@synchronous.post("/deployments/{deployment}/batches")
async def chat(request: Request, deployment: str = "") -> Response:
    """Refused in the words of Azure (F§5.2): this gateway serves batches."""
    caller = await caller_of(request)
    name = deployment or str((await json_body(request)).get("model"))[:100]
    if name not in await _names(request, caller):
        raise Problem(404, "DeploymentNotFound", NO_DEPLOYMENT, retry=False)
    text = (
        f"The chatCompletion operation does not work with the specified model, {name}. Please choose different model and "
        "try again."
    )
    raise Problem(400, "OperationNotSupported", text, retry=False)
