"""Receive a file: streamed to disk with its hash and line count on the way, at constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import multipart
from starlette.requests import Request

from sluicegate.web.dialects import Problem
from sluicegate.web.state import body_of

FIELD_BYTES_MAX: Final = 65_536
FIELDS_MAX: Final = 32
WRITE_AT: Final = 1 << 20


@dataclass(slots=True)
class Received:
    """A form: its text fields, and the file that is at the given path now."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    bytes: int = 0
    lines: int = 0
    sha256: str = ""


async def receive(request: Request, aside: Path, bytes_max: int, *, wanted: str = "file") -> Received:
    """Stream the file in a multipart form's field ``wanted`` to ``aside``, fsynced; in any order, chunked or not.

    Raises:
        Problem: no form, a broken one, or too large. OSError: the disk is full. The caller removes ``aside``.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not 0 < len(options.get("boundary", "")) <= 200:
        raise Problem(400, "invalidPayload", "The body is not multipart/form-data with a boundary.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")
    try:
        return await _receive(request, aside, options["boundary"], bytes_max, wanted)
    except multipart.MultipartError as error:
        raise Problem(400, "invalidPayload", f"The multipart body is broken: {error}") from None


async def _receive(request: Request, aside: Path, boundary: str, bytes_max: int, wanted: str) -> Received:
    found = Received()
    digest = hashlib.sha256()
    name, value, waiting = "", bytearray(), bytearray()
    last = b"\n"
    segments = 0
    with (
        await asyncio.to_thread(aside.open, "wb", 0) as out,
        multipart.PushMultipartParser(boundary, max_segment_count=FIELDS_MAX) as parser,
    ):

        def write(content: bytes) -> None:
            digest.update(content)
            out.write(content)
            found.lines += content.count(b"\n")

        async for chunk in body_of(request):
            for event in parser.parse(chunk):
                if isinstance(event, multipart.MultipartSegment):
                    segments += 1
                    name = event.name or ""
                    if name == wanted:
                        if found.filename is not None:
                            raise Problem(400, "invalidPayload", "The form has two files.", param=wanted)
                        found.filename = event.filename or "upload"
                elif event is None:
                    if name and name != wanted:
                        found.fields[name] = value.decode("utf-8", "replace")
                    name = ""
                    value.clear()
                elif name == wanted:
                    found.bytes += len(event)
                    if found.bytes > bytes_max:
                        raise Problem(400, "invalidPayload", "File is too large.", param=wanted)  # F§5.3
                    waiting += event
                    last = bytes(event[-1:]) or last
                else:
                    value += event
                    if len(value) > FIELD_BYTES_MAX:
                        raise Problem(400, "invalidPayload", "A field of the form is too long.")
            if len(waiting) >= WRITE_AT:
                content, waiting = bytes(waiting), bytearray()
                await asyncio.to_thread(write, content)

        def finish(content: bytes) -> None:
            write(content)
            os.fsync(out.fileno())

        await asyncio.to_thread(finish, bytes(waiting))
    found.lines += last != b"\n"
    found.sha256 = digest.hexdigest()
    return found
