"""What the check finds, in the words of the provider whose dialect the client speaks (F§5.2, F§5.3).

Clients match on codes and texts; what we know beyond them stays in our own logs and in ``POST /v1/quota/check``.
"""

from __future__ import annotations

import re
from typing import Any, Final

_OPENAI: Final[dict[str, tuple[str | None, str | None]]] = {
    "invalid_json_line": ("This line is not parseable as valid JSON.", None),
    "invalid_url": ("The URL provided for this request does not match the batch endpoint.", "url"),
    "streaming_unsupported": ("Chat Completions: Streaming is not supported in the Batch API.", "body.stream"),
    "missing_required_parameter": (None, "'([^']+)'"),
    "duplicate_custom_id": (None, "custom_id"),
    "model_not_found": (None, "body.model"),
}
"""Code → (the literal text where there is one, the parameter or a pattern that finds it in our text)."""

_AZURE_NO_NAME: Final = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that each "
    "row in the input file has a valid deployment name specified in the 'model' field, and that the deployment name is "
    "consistent across all rows."
)

_AZURE_CODES: Final = {
    "missing_required_parameter": "invalid_request", "invalid_type": "invalid_request",
    "streaming_unsupported": "invalid_request", "invalid_url": "url_mismatch",
}  # fmt: skip
"""Azure's table has one code for every bad schema (F§5.2)."""


def worded(problem: dict[str, Any], *, azure: bool) -> dict[str, Any]:
    """A problem ``{code, message, param, line}`` as the dialect has it."""
    code, message, param = problem["code"], problem["message"], problem["param"]
    if azure:
        text = _AZURE_NO_NAME if message == "Model parameter is required." else message
        return problem | {"code": _AZURE_CODES.get(code, code), "message": text}
    if code == "model_not_found" and (named := re.search("'(.*)'", message)):
        message = f"The provided model '{named[1]}' is not supported by the Batch API."
    text, where = _OPENAI.get(code, (None, None))
    if where is not None and where.startswith("'"):
        found = re.search(where, message)
        where = found[1] if found else None
    return problem | {"message": text or message, "param": param or where}
