"""Every error that Sluicegate raises, in one tree.

::

    SluicegateError
    ├── UsageError            exit 2   a setting, flag or path is wrong
    │   ├── InputChanged               a known path has other content than the run that used it
    │   └── StateUnusable              the data folder cannot be used (read-only, full, another version)
    ├── InputRefused          exit 3   the check found errors; nothing was submitted
    │   └── CostLimitExceeded          the work would cost more than ``max_cost``
    ├── Interrupted           exit 4   stopped by the person; the same command goes on
    ├── ProviderRefused       exit 5   the provider refuses for good
    │   ├── AuthenticationFailed       401 / 403
    │   └── DeploymentNotFound         no such deployment or model
    └── BackendError          exit 4   one call to a provider did not do what was asked; a run tries again by itself
        ├── CallRefused                4xx: the provider understood and said no; nothing happened
        │   ├── TokenLimitExceeded     the deployment's enqueued tokens are used up
        │   ├── FileNotReady           the input file is not ``processed`` yet
        │   ├── FileQuotaExceeded      too many files on the resource
        │   ├── NotFound               404 of one file or batch
        │   └── Conflict               409
        ├── Throttled                  429; obey ``retry_after_s``
        ├── Unavailable                5xx, no connection: nothing is known to have happened, safe to repeat a read
        └── OutcomeUnknown             a create was sent and no answer came: it may or may not have been committed

A message says what happened, to what, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class SluicegateError(Exception):
    """The base of all errors raised on purpose."""

    exit_code = 2
    code = "error"


class UsageError(SluicegateError):
    """A setting, a flag or a path is wrong; the message names it and the remedy."""

    exit_code = 2
    code = "usage"


class InputChanged(UsageError):
    """A path that an unfinished run knows has other content now."""

    code = "input_changed"


class StateUnusable(UsageError):
    """The data folder cannot be read or written."""

    code = "state_unusable"


class InputRefused(SluicegateError):
    """The check found errors in the input; nothing was submitted.

    Args:
        problems: The first ones of each code, as ``check --json`` lists them (docs/check.md).
    """

    exit_code = 3
    code = "input_refused"

    def __init__(self, message: str, *, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class CostLimitExceeded(InputRefused):
    """The work is estimated to cost more than the person allows."""

    code = "cost_limit_exceeded"


class BlobRefused(SluicegateError):
    """A blob in remote storage may not be used, is not there or too large: no repeat helps."""

    code = "blob_refused"


class BlobUnavailable(SluicegateError):
    """Remote storage does not answer as it should: a later attempt may help."""

    code = "blob_unavailable"


class Interrupted(SluicegateError):
    """The person stopped the run; the same command goes on where it was."""

    exit_code = 4
    code = "interrupted"


class ProviderRefused(SluicegateError):
    """The provider refuses for good; waiting does not help."""

    exit_code = 5
    code = "provider_refused"


class AuthenticationFailed(ProviderRefused):
    """The credentials are not accepted (401, or 403 after a fresh token)."""

    code = "authentication_failed"


class DeploymentNotFound(ProviderRefused):
    """The provider knows no such deployment or model, or it cannot run batches."""

    code = "deployment_not_found"


class BackendError(SluicegateError):
    """One call to the provider failed.

    Args:
        message: The provider's sentence, without keys or endpoints.
        status: HTTP status, or None if there was no answer.
        code: The provider's error code, if it gave one.
    """

    exit_code = 4
    code = "backend_error"

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        if code:
            self.code = code


class CallRefused(BackendError):
    """4xx: the provider said no, and nothing happened."""


class TokenLimitExceeded(CallRefused):
    """HTTP 400 at create: the deployment's enqueued tokens are used up (fail fast).

    Args:
        limit: The number in the text ("30K" gives 30,000), or None where the text has none.
        dimension: What is used up: ``tokens`` or, as OpenAI limits embeddings too, ``requests``.
    """

    def __init__(self, message: str, *, limit: int | None, dimension: str = "tokens", status: int | None = 400) -> None:
        super().__init__(message, status=status, code="token_limit_exceeded")
        self.limit, self.dimension = limit, dimension


class FileNotReady(CallRefused):
    """The input file is still ``pending``."""


class FileQuotaExceeded(CallRefused):
    """The resource holds as many files as it may (Azure: 500 without expiry)."""


class NotFound(CallRefused):
    """404 of one file or batch: a finding, not the end."""


class Conflict(CallRefused):
    """409, for instance a cancel of a batch that has ended."""


class Throttled(BackendError):
    """429. ``retry_after_s`` is what the provider asked for, seconds, or None."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, status: int | None = 429) -> None:
        super().__init__(message, status=status, code="too_many_requests")
        self.retry_after_s = retry_after_s


class Unavailable(BackendError):
    """5xx, a time-out or no connection, on a call that is safe to repeat."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(message, status=status, code="unavailable")
        self.retry_after_s = retry_after_s


class OutcomeUnknown(BackendError):
    """A create was sent and the answer was lost (time-out, reset, 5xx): it may have been committed."""


def retry_after_of(error: BackendError) -> float:
    """Seconds that the provider asks to wait after this error; 0 if it asks for nothing. A floor, never the whole pause."""
    return (error.retry_after_s or 0.0) if isinstance(error, Throttled | Unavailable) else 0.0
