"""The reference of the gateway's surface: what every operation takes and gives, with examples and errors.

FastAPI knows the routes; what they read and answer is said here, since the bodies are the provider's and not ours to model.
A test calls every operation as it is described here and compares the answers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from html import escape
from typing import Any, Final, get_args, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sluicegate.core import check
from sluicegate.core.report import QuotaRow

Schema = dict[str, Any]


def _object(required: str, optional: str = "", **properties: Schema) -> Schema:
    """An object: ``required`` and ``optional`` list ``name:type`` pairs, ``?`` after a type for null."""
    found: dict[str, Schema] = {}
    kinds = {"s": "string", "i": "integer", "n": "number", "b": "boolean", "o": "object", "a": "array"}
    for pair in (required + " " + optional).split():
        name, _, kind = pair.partition(":")
        type_ = kinds[kind[0]]
        found[name] = {"type": [type_, "null"]} if kind.endswith("?") else {"type": type_}
    found |= properties
    return {"type": "object", "properties": found, "required": [pair.partition(":")[0] for pair in required.split()]}


_JSON_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _of(kind: type) -> Schema:
    """The object that a dataclass of plain values becomes; its docstring's ``Attributes`` are the descriptions."""
    hints = get_type_hints(kind)
    said = dict(re.findall(r"^ +(\w+): (.+)$", kind.__doc__ or "", re.MULTILINE))
    properties: dict[str, Schema] = {}
    for one in fields(kind):
        types = [_JSON_TYPES[type_] for type_ in get_args(hints[one.name]) or (hints[one.name],)]
        described = {"description": said[one.name].replace("``", "`")} if one.name in said else {}
        properties[one.name] = {"type": types if len(types) > 1 else types[0], **described}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _each(schema: Schema) -> Schema:
    """An object whose keys are names, and whose values are all alike."""
    return {"type": "object", "additionalProperties": schema}


def _strings(*values: str) -> Schema:
    return {"type": "array", "items": {"type": "string", **({"enum": list(values)} if values else {})}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> Schema:
    return _object("object:s data:a first_id:s? last_id:s? has_more:b", data={"type": "array", "items": _ref(name)})


_TIMES = (
    "in_progress_at:i? finalizing_at:i? completed_at:i? failed_at:i? expired_at:i? cancelling_at:i? cancelled_at:i?"
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Error": _object("error:o", error=_object("message:s type:s param:s? code:s?")),
    "File": _object(
        "id:s object:s bytes:i created_at:i filename:s purpose:s status:s expires_at:i? status_details:s?"
    ),
    "Files": _list("File"),
    "Deleted": _object("id:s object:s deleted:b"),
    "Upload": _object(
        "id:s object:s bytes:i created_at:i filename:s purpose:s status:s expires_at:i file:o?",
        file={"anyOf": [_ref("File"), {"type": "null"}]},
        status={"type": "string", "enum": ["pending", "completed", "cancelled"]},
    ),
    "UploadPart": _object("id:s object:s created_at:i upload_id:s", "azure_block_id:s"),
    "Problem": _object("code:s message:s param:s? line:i?"),
    "Batch": _object(
        f"id:s object:s endpoint:s errors:o? input_file_id:s? completion_window:s status:s output_file_id:s? "
        f"error_file_id:s? created_at:i expires_at:i request_counts:o usage:o metadata:o? sluicegate:o {_TIMES}",
        "input_blob:s? output_blob:s? error_blob:s?",
        status={"type": "string", "enum": ["validating", "failed", "in_progress", "finalizing", "completed", "expired",
                                           "cancelling", "cancelled"]},
        errors={"type": ["object", "null"], "properties": {"object": {"type": "string"}, "data": {
            "type": "array", "items": _ref("Problem")}}},
        request_counts=_object("total:i completed:i failed:i"),
        usage=_object(
            "input_tokens:i input_tokens_details:o output_tokens:i output_tokens_details:o total_tokens:i",
            input_tokens_details=_object("cached_tokens:i"), output_tokens_details=_object("reasoning_tokens:i"),
        ),
        metadata={"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        sluicegate=_object(
            "waiting_requests:i waiting_tokens:i held_tokens:i reserved_tokens:i parts:i expected_at:i? "
            "expected_at_latest:i? reasons:a position:i?",
            reasons=_strings(),
        ),
    ),
    "Batches": _list("Batch"),
    "Part": _object(
        "id:s object:s deployment:s provider_batch_id:s? stage:s means:s status:s? requests:i tokens:i reserved:i "
        "answered:i failed:i salvaged:i created_at:i held_at:i? collected_at:i?"
    ),
    "Parts": _list("Part"),
    "Model": _object("id:s object:s created:i owned_by:s"),
    "Models": _list("Model"),
    "Quota": _of(QuotaRow),
    "Quotas": _object("object:s data:a", data={"type": "array", "items": _ref("Quota")}),
    "CheckProblem": _of(check.Problem),
    "Forecast": _object("fits_now:i? first_part_at:n? done_at:n? note:s"),
    "Check": _object(
        "files:i requests:i bytes:i tokens:i median_tokens:i largest_tokens:i by_model:o problem_count:i "
        "problem_counts:o problems:a parts:i holds_s:n? deployments:o",
        by_model=_each(_object("requests:i tokens:i largest:i")), problem_counts=_each({"type": "integer"}),
        problems={"type": "array", "items": _ref("CheckProblem")}, deployments=_each(_ref("Forecast")),
    ),
    "Health": _object("status:s", "wrong:a", wrong=_strings()),
}  # fmt: skip

FILE: Final = {
    "id": "file-9f1c", "object": "file", "bytes": 182734, "created_at": 1795500000, "filename": "requests.jsonl",
    "purpose": "batch", "status": "processed", "status_details": None, "expires_at": None,
}  # fmt: skip
UPLOAD: Final = {
    "id": "upload_51aa", "object": "upload", "bytes": 182734, "created_at": 1795500000, "filename": "requests.jsonl",
    "purpose": "batch", "status": "pending", "expires_at": 1795503600, "file": None,
}  # fmt: skip
BATCH: Final = {
    "id": "batch_b2d4", "object": "batch", "endpoint": "/v1/chat/completions", "errors": None,
    "input_file_id": "file-9f1c", "completion_window": "24h", "status": "in_progress", "output_file_id": None,
    "error_file_id": None, "created_at": 1795500010, "expires_at": 1795586410, "in_progress_at": 1795500012,
    "finalizing_at": None, "completed_at": None, "failed_at": None, "expired_at": None, "cancelling_at": None,
    "cancelled_at": None, "request_counts": {"total": 1800, "completed": 640, "failed": 0},
    "usage": {
        "input_tokens": 104200, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 38100,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 142300,
    },
    "metadata": {"team": "search"},
    "sluicegate": {
        "waiting_requests": 980, "waiting_tokens": 165400, "held_tokens": 29120, "reserved_tokens": 0, "parts": 14,
        "expected_at": 1795500400, "expected_at_latest": 1795500900,
        "reasons": ["gpt-4.1: the gate is full: 29,120 of 30,000 tokens"], "position": 1,
    },
}  # fmt: skip
NEW: Final = {
    "status": "validating", "in_progress_at": None, "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "usage": {
        "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    },
}  # fmt: skip
"""What differs in the answer to a create."""

CANCELLING: Final = {"status": "cancelling", "cancelling_at": 1795500100}
PART: Final = {
    "id": "part_77c0", "object": "batch.part", "deployment": "gpt-4.1", "provider_batch_id": "batch_Xy", "stage": "held",
    "means": "held by the provider", "status": "in_progress", "requests": 45, "tokens": 7800, "reserved": 7956,
    "answered": 0, "failed": 0, "salvaged": 0, "created_at": 1795500013, "held_at": 1795500014, "collected_at": None,
}  # fmt: skip
QUOTA: Final = {
    "deployment": "gpt-4.1", "resource": "RESOURCE", "model": None, "limit": 30000,
    "limit_source": "configured+header", "reserved": 0, "held": 29120, "foreign": 0, "headroom": 880, "waiting": 61200,
    "provider_batches": 14, "calibration": 1.02, "next_release_at": 1795500060.5, "idle_at": 1795500700.0,
    "observed_at": 1795500012.0, "paused": False,
}  # fmt: skip
CHECK: Final = {
    "files": 1, "requests": 1800, "bytes": 182734, "tokens": 303552, "median_tokens": 168, "largest_tokens": 240,
    "by_model": {"gpt-4.1": {"requests": 1800, "tokens": 303552, "largest": 240}}, "problem_count": 1,
    "problem_counts": {"blank_line": 1}, "problems": [{
        "file": "file-9f1c", "line": 1801, "custom_id": None, "code": "blank_line", "severity": "warning",
        "message": "The line is blank.", "remedy": "It is left out; remove it.",
    }],
    "parts": 112, "holds_s": 450.0, "deployments": {"gpt-4.1": {
        "fits_now": 880, "first_part_at": 1795500010.0, "done_at": 1795501150.0,
        "note": "of 303,552 tokens, 880 fit now; the limit is 30,000 (known from: configured+header); "
                "a batch lives about 40 s",
    }},
}  # fmt: skip
MODEL: Final = {"id": "gpt-4.1", "object": "model", "created": 0, "owned_by": "sluicegate"}


def _page(one: Schema) -> Schema:
    return {"object": "list", "data": [one], "first_id": one["id"], "last_id": one["id"], "has_more": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operation takes and gives.

    Attributes:
        gives: Schema's name, or a content type; ``example`` of it.
        errors: Statuses beside those that every operation may have (:data:`COMMON`), with what they mean.
        body: Schema of a JSON body, ``sent`` an example; ``form``: fields of a multipart form.
        query, headers: Name → schema.
        open: No key is needed. ``looks``: it changes nothing whatever its method, so that an observer may.
    """

    gives: str
    example: Any = None
    errors: dict[int, str]
    body: Schema | None = None
    sent: Any = None
    form: Schema | None = None
    query: dict[str, Schema] | None = None
    headers: dict[str, Schema] | None = None
    open: bool = False
    looks: bool = False


MISSING: Final = {404: "There is none with this id, or it is another tenant's."}
PAGING: Final[dict[str, Schema]] = {
    "limit": {"type": "integer", "minimum": 1}, "after": {"type": "string"}, "before": {"type": "string"},
    "order": {"type": "string", "enum": ["asc", "desc"]},
}  # fmt: skip
BAD_QUERY: Final = {400: "A wrong value in the query."}
BAD_BODY: Final = {
    400: "A field is missing or wrong; `param` names it.", 408: "The body stopped coming.",
    413: "The body is too large.", 415: "The body is encoded.",
}  # fmt: skip
FULL: Final = {507: "The gateway's disk is full; `retry-after` says when to come back."}
RECEIVING: Final = BAD_BODY | FULL | {403: "The tenant's files have as many bytes as they may."}
COMMON: Final = {
    401: "No valid key.",
    503: "The gateway's storage does not work; `retry-after` says when to come back.",
}
OBSERVER: Final = "The key's role may look, not change."
EXPIRY: Final[dict[str, Schema]] = {
    "expires_after[anchor]": {"type": "string"}, "expires_after[seconds]": {"type": "integer"},
}  # fmt: skip
EXPIRES_AFTER: Final = _object("anchor:s seconds:i")

RANGE: Final[dict[str, Schema]] = {"Range": {"type": "string", "description": "One range, as `bytes=0-1023`."}}

OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("post", "/v1/files"): Operation(
        gives="File", example=FILE, errors=RECEIVING,
        form=_object("purpose:s file:s", "", file={"type": "string", "format": "binary"}, **EXPIRY),
    ),
    ("get", "/v1/files"): Operation(
        gives="Files", example=_page(FILE), errors=BAD_QUERY, query=PAGING | {"purpose": {"type": "string"}}
    ),
    ("get", "/v1/files/{id}"): Operation(gives="File", example=FILE, errors=MISSING),
    ("delete", "/v1/files/{id}"): Operation(
        gives="Deleted", example={"id": "file-9f1c", "object": "file", "deleted": True}, errors=MISSING
    ),
    ("get", "/v1/files/{id}/content"): Operation(
        gives="application/octet-stream", headers=RANGE, errors=MISSING | {416: "The range begins behind the end."}
    ),
    ("head", "/v1/files/{id}/content"): Operation(
        gives="application/octet-stream", headers=RANGE, errors=MISSING | {416: "The range begins behind the end."}
    ),
    ("post", "/openai/v1/files/import"): Operation(
        gives="File", example=FILE, errors=RECEIVING | {
            503: "The gateway's storage does not work, or the blob's does not answer; `retry-after` says when to come back.",
        },
        body=_object("purpose:s filename:s content_url:s", expires_after=EXPIRES_AFTER),
        sent={"purpose": "batch", "filename": "requests.jsonl", "content_url": "CONTAINER/requests.jsonl?sv=…&sig=…"},
    ),
    ("post", "/v1/uploads"): Operation(
        gives="Upload", example=UPLOAD, errors=BAD_BODY | {403: RECEIVING[403]},
        body=_object("bytes:i filename:s mime_type:s purpose:s", expires_after=EXPIRES_AFTER),
        sent={"bytes": 182734, "filename": "requests.jsonl", "mime_type": "application/jsonl", "purpose": "batch"},
    ),
    ("post", "/v1/uploads/{id}/parts"): Operation(
        gives="UploadPart", errors=MISSING | RECEIVING,
        example={"id": "part_3e", "object": "upload.part", "created_at": 1795500001, "upload_id": "upload_51aa"},
        form=_object("data:s", data={"type": "string", "format": "binary"}),
    ),
    ("post", "/v1/uploads/{id}/complete"): Operation(
        gives="Upload", example=UPLOAD | {"status": "completed", "file": FILE}, errors=MISSING | BAD_BODY | FULL,
        body=_object("part_ids:a", "md5:s", part_ids=_strings()),
        sent={"part_ids": ["part_3e"]},
    ),
    ("post", "/v1/uploads/{id}/cancel"): Operation(
        gives="Upload", example=UPLOAD | {"status": "cancelled"}, errors=MISSING | {400: "It is over already."}
    ),
    ("post", "/v1/batches"): Operation(
        gives="Batch", example=BATCH | NEW,
        errors=BAD_BODY | {
            403: "The tenant may never open such a batch.", 422: "The `Idempotency-Key` was used for another create.",
            429: "The tenant has as many open as it may, or creates too fast; `retry-after` says when to come back.",
        },
        headers={
            "Idempotency-Key": {"type": "string", "maxLength": 255, "description":
                "A repeat with the same key and body returns the batch of the first; it holds for the whole tenant."},
            "x-stainless-retry-count": {"type": "string", "description":
                "As SDKs send it: above 0, the batch of an attempt before whose answer may be lost."},
        },
        body=_object("endpoint:s completion_window:s",
                     "input_file_id:s metadata:o? input_blob:s output_folder:o output_expires_after:o?",
                     completion_window={"type": "string", "description": "`1h` to `7d`"},
                     input_file_id={"type": "string", "description": "A file of the tenant with the purpose `batch`."},
                     metadata={"type": ["object", "null"], "maxProperties": 16,
                               "additionalProperties": {"type": "string", "maxLength": 512}},
                     input_blob={"type": "string", "description":
                         "Azure's families only, instead of `input_file_id`: the URL of the input, in a container that "
                         "the operator allows."},
                     output_folder=_object("url:s", url={"type": "string"})
                     | {"description": "Azure's families only, with `input_blob`: where the results go."})
        | {"anyOf": [{"required": ["input_file_id"]}, {"required": ["input_blob", "output_folder"]}]},
        sent={"input_file_id": "file-9f1c", "endpoint": "/v1/chat/completions", "completion_window": "24h",
              "metadata": {"team": "search"}},
    ),
    ("get", "/v1/batches"): Operation(
        gives="Batches", example=_page(BATCH), errors=BAD_QUERY, query=PAGING | {
            "$filter": {"type": "string", "description":
                "Azure's families only, as `created_at gt 1728860560 and status eq 'Completed'`."},
            "$orderby": {"type": "string", "description": "Azure's families only, as `created_at asc`."},
        },
    ),
    ("get", "/v1/batches/{id}"): Operation(gives="Batch", example=BATCH, errors=MISSING),
    ("get", "/v1/batches/{id}/parts"): Operation(gives="Parts", example=_page(PART), errors=MISSING),
    ("post", "/v1/batches/{id}/cancel"): Operation(
        gives="Batch", example=BATCH | CANCELLING, errors=MISSING | {409: "It has ended already."}
    ),
    ("get", "/v1/models"): Operation(gives="Models", example=_page(MODEL), errors={}),
    ("get", "/v1/models/{model}"): Operation(gives="Model", example=MODEL, errors=MISSING),
    ("get", "/v1/quota"): Operation(gives="Quotas", example={"object": "list", "data": [QUOTA]}, errors={}),
    ("get", "/v1/quota/{deployment}"): Operation(
        gives="Quota", example=QUOTA, errors={404: "Neither the settings nor the tenant's batches name such a deployment."}
    ),
    ("post", "/v1/quota/check"): Operation(
        gives="Check", looks=True, example=CHECK,
        errors=MISSING | BAD_BODY | FULL | {429: "Other files are being checked; `retry-after` says when to come back."},
        body={"type": "object", "properties": {
            "input_file_id": {"type": "string"}, "lines": {"type": "array", "items": {"type": "object"}}}},
        sent={"input_file_id": "file-9f1c"},
    ),
    ("get", "/healthz"): Operation(gives="Health", example={"status": "ok"}, errors={}, open=True),
    ("get", "/readyz"): Operation(
        gives="Health", example={"status": "ok", "wrong": []}, errors={503: "It cannot work; `wrong` says why."}, open=True
    ),
    ("get", "/metrics"): Operation(
        gives="text/plain", open=True,
        errors={401: "`gateway_metrics` is `key`: no valid key.", 404: "`gateway_metrics` is `off`.", 503: COMMON[503]},
    ),
}  # fmt: skip
"""Every operation of the ``/v1`` family, our own, and what Azure's families have beside those (docs/gateway.md)."""


ERRORS: Final[dict[int, tuple[str, str, str | None]]] = {
    400: ("invalid_value", "Missing required parameter: 'input_file_id'.", "input_file_id"),
    401: ("invalid_api_key", "Incorrect API key provided.", None),
    403: ("forbidden", "This key may look, not change.", None),
    404: ("not_found", "No batch found with id 'batch_b2d4'.", "id"),
    408: ("request_timeout", "No byte of the body came for 60 s.", None),
    409: ("conflict", "Cannot cancel a batch with status 'completed'.", None),
    413: ("payload_too_large", "The body has more than 1,000,000 bytes.", None),
    415: ("unsupported_media_type", "Send the body without Content-Encoding.", None),
    422: ("idempotency_key_reused", "This Idempotency-Key was used for a create with other parameters.", None),
    429: (
        "too_many_batches",
        "10,000 batches of yours are open, 10,000 may be. Create more when some have ended.",
        None,
    ),
    503: ("unavailable", "The gateway's storage does not work.", None),
    507: ("insufficient_storage", "The gateway's disk is full.", None),
}
"""Status → (code, message, param) of one error with it."""

NOT_READY: Final = {"status": "not ready", "wrong": ["provider: it refuses the gateway's credentials"]}

DESCRIPTION: Final = """The paths of `/v1` stand for four addresses with the same operations: `/v1` (OpenAI's habits), \
`/openai/v1` and `/api/projects/NAME/openai/v1` (Azure's v1 surface), and `/openai` with `?api-version=` in every query \
(Azure's dated surface). `/files/import` is in Azure's alone; models are in all of them; `/v1/quota` has no other address.

On Azure's, `$filter`, `$orderby`, `input_blob` and `output_folder` are understood, a create is answered with the headers \
`deployment-enqueued-tokens` and, once it is known, `deployment-maximum-enqueued-tokens`, batches have `input_blob`, \
`output_blob` and `error_blob`, and parts of uploads `azure_block_id`. On `/openai` errors are \
`{"error": {"code": …, "message": …}}`, and a create or an upload is answered 201.

The key goes into `Authorization: Bearer KEY` or `api-key: KEY`. Every answer has `x-request-id`; an error that passes has \
`retry-after`, and `x-should-retry` tells the SDKs whether a repeat in the next seconds can help."""


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, description=DESCRIPTION,
            separate_input_output_schemas=False,
        )  # fmt: skip
        made["components"] = {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        }
        for path, methods in made["paths"].items():
            for method, shown in methods.items():
                _describe(shown, OPERATIONS[method, path], writes=method not in ("get", "head"))
        app.openapi_schema = made
    return app.openapi_schema


def errors_of(what: Operation, *, writes: bool) -> dict[int, str]:
    """The statuses of an operation beside 200, with what they mean."""
    errors = dict(what.errors) if what.open else COMMON | what.errors
    if writes and not what.looks and not what.open:
        errors[403] = f"{OBSERVER} {errors[403]}" if 403 in errors else OBSERVER
    return dict(sorted(errors.items()))


def error_example(status: int) -> dict[str, Any]:
    """An error of a status as the ``/v1`` family words it."""
    code, message, param = ERRORS[status]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _describe(shown: dict[str, Any], what: Operation, *, writes: bool) -> None:
    json_of = {"application/json": {"schema": _ref(what.gives), "example": what.example}}
    plain = "/" in what.gives
    shown["responses"] = {"200": {
        "description": "As asked.", "content": {what.gives: {"schema": {"type": "string"}}} if plain else json_of,
    }}  # fmt: skip
    for status, means in errors_of(what, writes=writes).items():
        if status not in ERRORS:
            shown["responses"][str(status)] = {"description": means}  # 416 has no body
            continue
        one: Schema = {"schema": _ref("Error"), "example": error_example(status)}
        if status == 503 and what.gives == "Health":
            one = {"schema": _ref("Health"), "example": NOT_READY}
        shown["responses"][str(status)] = {"description": means, "content": {"application/json": one}}
    if what.headers == RANGE:
        shown["responses"]["206"] = {
            "description": "The range.",
            "content": {what.gives: {"schema": {"type": "string"}}},
        }
    if not what.open:
        shown["security"] = [{"bearer": []}, {"key": []}]
    for place, named in (("query", what.query), ("header", what.headers)):
        shown.setdefault("parameters", []).extend(
            {"name": name, "in": place, "required": False, "schema": schema} for name, schema in (named or {}).items()
        )
    if what.body is not None:
        content: dict[str, Any] = {"application/json": {"schema": what.body, "example": what.sent}}
        shown["requestBody"] = {"required": True, "content": content}
    if what.form is not None:
        shown["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": what.form}}}


PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sluicegate: reference</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b2733;background:#fff}
h2{margin:2.5rem 0 0;border-top:1px solid #d5dde5;padding-top:1.5rem;font-size:1.15rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f3f6f9;padding:.8rem 1rem;overflow:auto;border-radius:6px}.m{color:#0b6bcb;font-weight:700}
table{border-collapse:collapse;margin:.5rem 0}td{padding:.15rem .8rem .15rem 0;vertical-align:top}nav a{margin-right:1rem}
@media(prefers-color-scheme:dark){body{background:#10161c;color:#dbe4ec}pre{background:#1a232c}h2{border-color:#2b3742}.m{color:#6cb6ff}}
</style></head><body><h1>Sluicegate</h1><p>"""


TAGS: Final = ("quota", "batches", "files", "uploads", "models", "health")
"""In this order: first what no provider has."""


def page(app: FastAPI) -> str:
    """The document as one page of HTML: no script, and nothing from elsewhere."""
    made = document(app)
    parts = [
        PAGE, escape(made["info"]["summary"]), " <a href='/openapi.json'>openapi.json</a></p>",
        *(f"<p>{_words(text)}</p>" for text in DESCRIPTION.split("\n\n")), "<nav>",
    ]  # fmt: skip
    parts += [f"<a href='#{tag}'>{tag}</a>" for tag in TAGS]
    parts.append("</nav>")
    for tag in TAGS:
        parts.append(f"<span id='{tag}'></span>")
        for path, methods in made["paths"].items():
            parts += [_section(method, path, shown) for method, shown in methods.items() if shown["tags"][0] == tag]
    return "".join(parts) + "</body></html>"


def _words(text: str) -> str:
    """Text with ``code`` in it, as HTML."""
    return re.sub(r"(`{1,2})(.+?)\1", r"<code>\2</code>", escape(text))


def _section(method: str, path: str, shown: dict[str, Any]) -> str:
    what = OPERATIONS[method, path]
    lines = [
        f"<h2><span class='m'>{method.upper()}</span> <code>{escape(path)}</code></h2>",
        f"<p><b>{escape(shown['summary'])}.</b> {_words(shown.get('description', ''))}</p>",
    ]  # fmt: skip
    if what.query:
        lines.append("<p>Query: " + ", ".join(f"<code>{name}</code>" for name in what.query) + "</p>")
    if what.headers:
        lines.append("<p>Headers: " + ", ".join(f"<code>{name}</code>" for name in what.headers) + "</p>")
    if what.form is not None:
        lines.append("<p>Form: " + ", ".join(f"<code>{name}</code>" for name in what.form["properties"]) + "</p>")
    if what.sent is not None:
        lines.append(f"<p>Takes</p><pre>{escape(json.dumps(what.sent, indent=2))}</pre>")
    if what.example is not None:
        lines.append(f"<p>Gives</p><pre>{escape(json.dumps(what.example, indent=2, ensure_ascii=False))}</pre>")
    rows = [
        f"<tr><td>{status}</td><td>{_words(one['description'])}</td></tr>" for status, one in shown["responses"].items()
    ]
    return "".join(lines) + "<table>" + "".join(rows) + "</table>"
