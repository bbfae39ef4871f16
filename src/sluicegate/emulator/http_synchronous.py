"""The synchronous calls of Azure, which a batch deployment refuses (F§5.2); the emulator serves nothing else there."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sluicegate.emulator.provider import Provider
from sluicegate.emulator.wire import Problem, json_body

NO_DEPLOYMENT: Final = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please "
    "wait a moment and try again."
)


class SynchronousEndpoints:
    """Synchronous calls to one account."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def chat(self, request: Request) -> Response:
        """``POST …/chat/completions``: refused, in the words that say why.

        Raises:
            Problem: 404, no such deployment; 400, it serves batches only; 501 for any other, which is not emulated.
        """
        deployment = request.path_params.get("deployment") or str((await json_body(request)).get("model"))
        model = self._provider.model
        if not model.deployments.exists(deployment):
            raise Problem(404, "DeploymentNotFound", NO_DEPLOYMENT)
        if model.deployments.refused_type(deployment):
            raise Problem(501, "NotImplemented", "Synchronous calls are not emulated.")
        raise Problem(
            400, "OperationNotSupported",
            f"The chatCompletion operation does not work with the specified model, {deployment}. Please choose different "
            "model and try again.",
        )  # fmt: skip
