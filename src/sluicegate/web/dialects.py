"""The three URL families, each with its envelope and its errors (docs/gateway.md)."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from sluicegate.core.types import Dialect


class Family(Enum):
    """OpenAI ``/v1``, Azure ``/openai?api-version=`` and Azure's ``/openai/v1``; the value is the prefix of its paths."""

    OPENAI = "/v1"
    AZURE_V1 = "/openai/v1"
    AZURE = "/openai"

    @property
    def azure(self) -> bool:
        """True if Azure's envelope and habits hold."""
        return self is not Family.OPENAI

    @property
    def dated(self) -> bool:
        """True if ``api-version`` belongs in the query, and errors have Azure's own envelope."""
        return self is Family.AZURE

    @property
    def dialect(self) -> Dialect:
        """Whose habits hold."""
        return Dialect.AZURE if self.azure else Dialect.OPENAI


PROJECTS: Final = "/api/projects/{project}/openai/v1"
"""Another address of Azure's v1 family: that of the Azure AI projects SDK. The project's name has no meaning here."""

_PROJECTS: Final = re.compile("/api/projects/[^/]+/openai/v1(?=/)")


def prefix_of(path: str) -> str | None:
    """The template of the prefix by which a request's path belongs to a family, or None if it belongs to none."""
    if _PROJECTS.match(path):
        return PROJECTS
    prefixes = (family.value for family in (Family.AZURE_V1, Family.AZURE, Family.OPENAI))
    return next((prefix for prefix in prefixes if path.startswith(f"{prefix}/")), None)


def family_of(request: Request) -> Family:
    """The family that a request's path belongs to; paths of our own count as OpenAI's."""
    path: str = request.scope["path"]  # request.url is put together anew for each request
    if path.startswith("/openai/v1/") or _PROJECTS.match(path):
        return Family.AZURE_V1
    return Family.AZURE if path.startswith("/openai/") else Family.OPENAI


class Problem(Exception):
    """An answer that is an error.

    Args:
        retry: What ``x-should-retry`` tells the SDKs; None leaves it to them.
        after_s: ``Retry-After``.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry: bool | None = None,
        after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry, self.after_s = retry, after_s


def not_found(request: Request, what: str, id_: str) -> Problem:
    """404: no such thing, or another tenant's; the two cannot be told apart."""
    code = "notFound" if family_of(request).azure else "not_found"
    return Problem(404, code, f"No {what} found with id '{id_[:100]}'.", param="id")


def envelope(request: Request, problem: Problem) -> JSONResponse:
    """The error in the shape of the family that was called."""
    if family_of(request).dated:
        error: dict[str, Any] = {"code": problem.code, "message": problem.message}
    else:
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    headers = {}
    if problem.after_s is not None:
        headers["retry-after"] = str(max(1, round(problem.after_s)))
    if problem.retry is not None:
        headers["x-should-retry"] = "true" if problem.retry else "false"
    return JSONResponse({"error": error}, problem.status, headers)
