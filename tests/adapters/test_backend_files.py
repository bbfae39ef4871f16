"""The batch backend's files over real sockets: uploads, downloads from any offset, deletes; memory stays flat."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from sluicegate.adapters.backend_batch import Timeouts
from sluicegate.errors import (
    CallRefused,
    FileQuotaExceeded,
    NotFound,
    OutcomeUnknown,
    ProviderRefused,
    SluicegateError,
    Unavailable,
)
from tests.adapters.scripted import (
    FILE,
    Answer,
    Request,
    Server,
    azure,
    connected,
    drop,
    error,
    read,
    reply,
    reset,
    silence,
)


async def test_an_upload_is_multipart_with_its_length(server: Server, tmp_path: Path) -> None:
    """Purpose, name, expiry and bytes arrive as the SDKs send them; Azure's expiry is at least 14 days."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b'{"custom_id":"\xc3\xa4"}\n')
    server.script = [reply(201, FILE)]
    async with connected(server.url, **azure(server.url)) as backend:
        remote = await backend.upload(path, filename="a:b:1.jsonl", expires_after_s=3_600)

    assert (remote.id, remote.status, remote.filename) == ("file-1", "pending", "a.jsonl")
    [sent] = server.requests
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in sent.body
    assert b'name="file"; filename="a:b:1.jsonl"' in sent.body
    assert b'\r\n\r\n{"custom_id":"\xc3\xa4"}\n\r\n' in sent.body
    assert b'name="expires_after[anchor]"\r\n\r\ncreated_at\r\n' in sent.body
    assert b'name="expires_after[seconds]"\r\n\r\n1209600\r\n' in sent.body


@pytest.mark.parametrize("answer", [drop, reset, silence, reply(500), reply(200, b"{}")])
async def test_an_upload_whose_answer_is_lost_is_unknown_and_was_sent_once(
    server: Server, tmp_path: Path, answer: Answer
) -> None:
    """The caller looks for the file by its name; the adapter sends it once."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"{}\n")
    server.script = [answer]
    async with connected(server.url, read_retries=3, timeouts=Timeouts(stall_s=0.5)) as backend:
        with pytest.raises(OutcomeUnknown):
            await backend.upload(path, filename="part.jsonl")

    assert server.count("POST") == 1


async def test_an_upload_that_nobody_takes_ends(tmp_path: Path) -> None:
    """A server that stops reading does not hold an upload for ever."""
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"x" * 30_000_000)
    release = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    listening = await asyncio.start_server(stuck, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with connected(url, timeouts=Timeouts(stall_s=0.3)) as backend:
        with pytest.raises(OutcomeUnknown, match="in time"):
            await backend.upload(path, filename="big.jsonl")
    release.set()
    listening.close()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            error("quotaExceeded", "The quota for files without expiry is reached. The maximum is 500."),
            FileQuotaExceeded,
        ),
        (error("invalidPayload", "Invalid value for purpose."), ProviderRefused),
        (error(None, "Invalid file format for Batch API. Must be .jsonl"), CallRefused),
    ],
)
async def test_refusals_of_uploads_are_told_apart(server: Server, tmp_path: Path, body: object, kind: type) -> None:
    """A full resource, a resource without batches, and a bad file are three things."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"{}\n")
    server.script = [reply(400, body)]
    async with connected(server.url) as backend:
        with pytest.raises(SluicegateError) as caught:
            await backend.upload(path, filename="part.jsonl")

    assert type(caught.value) is kind


async def test_a_refusal_in_the_middle_of_an_upload_is_heard(server: Server, tmp_path: Path) -> None:
    """A server that answers before it has read the file, and closes, is understood."""
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"x" * 8_000_000)

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(413, error(None, "File is too large."), connection="close"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(early, "127.0.0.1", 0)
    async with connected(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as backend:
        with pytest.raises(CallRefused, match="too large"):
            await backend.upload(path, filename="big.jsonl")
    listening.close()


async def test_files_are_found_on_all_pages(server: Server) -> None:
    """Names are looked up on every page; other purposes are no input files."""
    named = {**FILE, "id": "file-7", "filename": "wanted.jsonl"}
    server.script = [
        reply(200, {"data": [FILE, {**named, "id": "file-8", "purpose": "batch_output"}], "has_more": True}),
        reply(200, {"data": [named], "has_more": False}),
    ]
    async with connected(server.url) as backend:
        found = await backend.find_files(frozenset({"wanted.jsonl"}))

    assert [f.id for f in found] == ["file-7"]
    assert server.requests[1].query == "after=file-8&limit=1000&purpose=batch"


async def test_a_list_that_ignores_paging_ends(server: Server) -> None:
    """Azure may answer every page with the whole list and claim that there is more."""
    server.script = [reply(200, {"data": [FILE, {**FILE, "id": "file-2"}], "has_more": True, "last_id": "x"})]
    async with connected(server.url, **azure(server.url)) as backend:
        found = await backend.find_files(frozenset({"a.jsonl"}))

    assert [f.id for f in found] == ["file-1", "file-2"]
    assert len(server.requests) == 2


async def test_deleting_a_file_that_is_gone_is_no_error(server: Server) -> None:
    """200 with a body, 204 without, and 404 all mean that the file is no more."""
    server.script = [reply(200, {"deleted": True}), reply(204), reply(404, error("notFound", "File not found: file-1"))]
    async with connected(server.url) as backend:
        for _ in range(3):
            await backend.delete_file("file-1")

    assert server.count("DELETE") == 3


CONTENT = bytes(range(256)) * 4_000


async def ranged(request: Request, writer: asyncio.StreamWriter) -> None:
    """Serve CONTENT with ranges."""
    wanted = request.headers.get("range")
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    if start >= len(CONTENT):
        writer.write(reply(416, content_range=f"bytes */{len(CONTENT)}"))
    elif wanted:
        writer.write(reply(206, CONTENT[start:], content_range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"))
    else:
        writer.write(reply(200, CONTENT))


async def aligned(request: Request, writer: asyncio.StreamWriter) -> None:
    """Serve ranges from the block's beginning, before the byte that was asked for."""
    start = int(request.headers["range"].removeprefix("bytes=").rstrip("-")) // 1_000 * 1_000
    writer.write(reply(206, CONTENT[start:], content_range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"))


async def rangeless(request: Request, writer: asyncio.StreamWriter) -> None:
    """Refuse every range."""
    writer.write(reply(416) if "range" in request.headers else reply(200, CONTENT))


@pytest.mark.parametrize(
    "answer", [ranged, aligned, rangeless, reply(200, CONTENT)], ids=["206", "early", "416", "200"]
)
@pytest.mark.parametrize("offset", [1, 12_345, 700_000, len(CONTENT) - 1])
async def test_a_download_goes_on_from_an_offset(server: Server, answer: Answer, offset: int) -> None:
    """With ranges, with ranges that begin early, and from servers that ignore or refuse them."""
    server.script = [answer]
    async with connected(server.url) as backend:
        assert await read(backend, offset) == CONTENT[offset:]


@pytest.mark.parametrize("answer", [ranged, reply(200, CONTENT)], ids=["416", "200"])
async def test_a_download_from_the_end_is_empty(server: Server, answer: Answer) -> None:
    """A file that was read completely before gives nothing more."""
    server.script = [answer]
    async with connected(server.url) as backend:
        assert await read(backend, len(CONTENT)) == b""


async def test_a_download_that_breaks_off_says_so_and_keeps_what_came(server: Server) -> None:
    """The pieces that arrived are given out, then Unavailable: the caller goes on at its offset."""

    async def broken(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(200, CONTENT)[:600_000])
        await writer.drain()
        writer.close()

    server.script = [broken]
    got = bytearray()
    async with connected(server.url) as backend:
        with pytest.raises(Unavailable):  # noqa: PT012 - what came before the error is what is looked at
            async for chunk in backend.download("file-1"):
                got += chunk

    assert CONTENT.startswith(bytes(got))
    assert len(got) > 250_000


async def test_a_file_shorter_than_what_was_read_is_refused(server: Server) -> None:
    """An offset beyond the end is no empty success."""
    server.script = [reply(200, b"short")]
    async with connected(server.url) as backend:
        with pytest.raises(CallRefused):
            await read(backend, 100)


@pytest.mark.parametrize(
    ("answer", "kind"), [(reply(404, error(None, "No such File object: file-1")), NotFound), (reply(502), Unavailable)]
)
async def test_a_download_that_is_refused_says_why(server: Server, answer: bytes, kind: type) -> None:
    """Absent is a finding, 502 is passing."""
    server.script = [answer]
    async with connected(server.url) as backend:
        with pytest.raises(kind):
            await read(backend)


MEASURE = """
import asyncio, resource, sys, pathlib
from sluicegate.adapters.connect import connect
CHUNK = b"x" * 65536
async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    length = next((int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")), 0)
    while length:
        length -= len(await reader.read(min(length, 65536)))
    size = int(sys.argv[2])
    if head.startswith(b"POST"):
        writer.write(b'HTTP/1.1 200 OK\\r\\ncontent-length: 15\\r\\n\\r\\n{"id":"file-1"}')
    else:
        writer.write(f"HTTP/1.1 200 OK\\r\\ncontent-length: {size}\\r\\n\\r\\n".encode())
        for _ in range(size // 65536):
            writer.write(CHUNK)
            await writer.drain()
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = connect(now=lambda: 0.0, base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-key")
    small = pathlib.Path(sys.argv[1] + ".small")
    small.write_bytes(b"{}")
    await backend.upload(small, filename="warm.jsonl")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = asyncio.get_running_loop()
    began = loop.time()
    await backend.upload(pathlib.Path(sys.argv[1]), filename="big.jsonl")
    uploaded = loop.time() - began
    middle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, read = loop.time(), 0
    async for chunk in backend.download("file-1"):
        read += len(chunk)
    downloaded = loop.time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await backend.close()
    server.close()
    print(read, middle - before, after - middle, before, uploaded, downloaded)
asyncio.run(main())
"""


async def test_uploads_and_downloads_do_not_live_in_memory(tmp_path: Path) -> None:
    """64 MB up and down grow the process by less than 16 MB, server included."""
    size = 64 * 1024 * 1024
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(size)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURE, str(path), str(size), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, problems = await process.communicate()

    assert process.returncode == 0, problems.decode()
    read_bytes, up_kb, down_kb, *_ = map(float, output.split())
    assert read_bytes == size
    assert up_kb < 16 * 1024
    assert down_kb < 16 * 1024
