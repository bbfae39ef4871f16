"""What no client of ours sends: broken bodies, headers and paths. Never a 500, never a hang, nothing is kept."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import hypothesis
import psutil
import pytest
from hypothesis import strategies as st

from sluicegate.testing import local_emulator
from tests.web.conftest import Served

TAKEN_S = 20.0
PATHS = [
    "/files", "/uploads", "/uploads/x/parts", "/uploads/x/complete", "/uploads/x/cancel", "/batches", "/batches/x/cancel",
    "/files/x/content", "/files/x", "/batches/x", "/batches/x/parts", "/models", "/models/x", "/quota", "/quota/check",
]  # fmt: skip


@pytest.fixture(scope="module")
def hardy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that waits a second for a body, in front of an emulator that is never asked."""
    with local_emulator() as provider:
        options = ("--set", "gateway_body_idle=1s", "--set", "gateway_file_bytes_max=100000")
        served = Served(provider.url, tmp_path_factory.mktemp("hardy"), options).start()
        yield served
        served.end()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=12,
)  # fmt: skip
names = st.sampled_from(
    ["input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after", "bytes", "filename",
     "mime_type", "purpose", "part_ids", "md5", "expires_after", "input_blob", "output_folder"]
)  # fmt: skip
near = st.sampled_from(
    ["24h", "/v1/chat/completions", "batch", "file-x", {"anchor": "created_at", "seconds": 5}, 1 << 70]
)
json_bodies = st.dictionaries(names, json_values | near, max_size=6).map(lambda v: json.dumps(v).encode())
broken_json = st.one_of(
    json_bodies.flatmap(lambda b: st.integers(0, len(b)).map(lambda n: b[:n])),
    st.sampled_from([b"[" * 50_000, b'{"a":' * 20_000, b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"\\ud800": "\\udfff"}', b"\0",
                     b"\xef\xbb\xbf{}", b"1e999999", b'{"bytes": 1e999}']),
    st.binary(max_size=200), json_values.map(lambda v: json.dumps(v).encode()),
)  # fmt: skip
pieces = st.sampled_from(
    [b"--b\r\n", b"--b--\r\n", b"--b", b"\r\n", b"\n", b"\r", b"\0", b"--", b"Content-Disposition: form-data; name=\"file\"",
     b"Content-Disposition: form-data; name=\"purpose\"", b"; filename=\"a.jsonl\"", b"; filename*=utf-8''%00", b"batch",
     b"Content-Disposition: form-data; name=\"expires_after[seconds]\"", b"Content-Type: text/html", b"x" * 5_000,
     b"Content-Transfer-Encoding: base64", b"name=\"\xff\"", b"{}", b"\r\n\r\n", b"X: " + b"y" * 9_000]
)  # fmt: skip
forms = st.lists(pieces | st.binary(max_size=20), max_size=14).map(b"".join)
kinds = st.sampled_from(
    ["application/json", "multipart/form-data", "multipart/form-data; boundary=b", "multipart/form-data; boundary=\"b\"",
     "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 300, "text/html", "", "multipart/mixed",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=b; boundary=c"]
)  # fmt: skip
text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
headers = st.fixed_dictionaries(
    {},
    optional={
        "range": st.sampled_from(["bytes=0-", "bytes=-", "bytes=9-1", "bytes=1-2,3-4", "lines=1-2"]) | text,
        "content-encoding": st.sampled_from(["gzip", "identity", "deflate, gzip", "x"]),
        "idempotency-key": text | st.just("k" * 300), "x-stainless-retry-count": text, "traceparent": text,
        "x-request-id": text, "accept": text, "expect": st.just("100-continue"), "x-pad": st.just("p" * 7_000),
    },
)  # fmt: skip
queries = st.dictionaries(
    st.sampled_from(["limit", "after", "before", "order", "purpose", "api-version", "$filter", "$orderby", "x"]),
    st.text(max_size=20) | st.sampled_from(["-1", "0", "99999999999", "asc", "2024-10-21", "status eq 'x'"]), max_size=4,
)  # fmt: skip
calls = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["POST", "POST", "GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"]),
        "family": st.sampled_from(["/v1", "/openai/v1", "/openai"]), "path": st.sampled_from(PATHS),
        "id": st.sampled_from(["x", "%00", "..%2f..", "a" * 3_000, "%f0%9f%98%80", "'; drop table files;--", "%"]),
        "query": queries, "headers": headers, "kind": kinds, "body": json_bodies | broken_json | forms,
        "key": st.sampled_from(["good", "good", "good", "none", "bad", "both"]),
    }
)  # fmt: skip


def kept(served: Served) -> dict[str, int]:
    return {folder.name: sum(1 for _ in folder.iterdir()) for folder in served.state.iterdir() if folder.is_dir()}


def send(client: httpx2.Client, served: Served, call: dict[str, Any]) -> httpx2.Response:
    sent = dict(call["headers"]) | ({"content-type": call["kind"]} if call["kind"] else {})
    if call["key"] in ("good", "both"):
        sent["authorization"] = f"Bearer {served.key}"
    if call["key"] in ("bad", "both"):
        sent["api-key"] = "sgk_x_y"
    url = served.url + call["family"] + call["path"].replace("/x", "/" + call["id"])
    return client.request(call["method"], url, params=call["query"], headers=sent, content=call["body"])


def torment(served: Served, examples: int) -> None:
    """So many calls; then everything is as it was."""
    process = psutil.Process(served.process.pid)
    before, memory = kept(served), [0.0]
    slowest = [0.0]

    with httpx2.Client(timeout=TAKEN_S) as client:

        @hypothesis.settings(
            max_examples=examples, deadline=None, database=None, derandomize=examples < 1_000,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(call=calls)
        def probe(call: dict[str, Any]) -> None:
            began = time.monotonic()
            try:
                answer = send(client, served, call)
            except (httpx2.LocalProtocolError, httpx2.InvalidURL, UnicodeEncodeError):
                return  # the client itself refuses to send it
            except httpx2.RemoteProtocolError:
                return  # the connection was closed on a request that is no HTTP
            slowest[0] = max(slowest[0], time.monotonic() - began)
            assert answer.status_code < 500, (answer.status_code, answer.text)
            if (
                answer.status_code >= 400
                and call["method"] != "HEAD"
                and "json" in answer.headers.get("content-type", "")
            ):
                assert answer.json()["error"]["message"]
            if memory[0] == 0.0:
                memory[0] = process.memory_info().rss

        probe()
        assert client.get(f"{served.url}/readyz").json() == {"status": "ok", "wrong": []}
    files = httpx2.get(f"{served.url}/v1/files", headers={"api-key": served.key}).json()["data"]
    for file in files:  # a form among them may be whole
        httpx2.delete(f"{served.url}/v1/files/{file['id']}", headers={"api-key": served.key})
    assert kept(served) == before
    assert slowest[0] < TAKEN_S and process.memory_info().rss < memory[0] + 60e6


def test_a_few_hundred_malformed_calls(hardy: Served) -> None:
    """The same ones each time."""
    torment(hardy, 400)


@pytest.mark.slow
def test_fifty_thousand_malformed_calls(hardy: Served) -> None:
    """Others each time."""
    torment(hardy, 50_000)


RAW = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "endless header": b"GET /v1/files HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000,
    "many headers": b"GET /v1/files HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    "lying length": b"POST /v1/batches HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-length: 500\r\n\r\n{",
    "two lengths": b"POST /v1/batches HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-length: 1\r\ncontent-length: 9\r\n\r\n{}",
    "length and chunks": b"POST /v1/batches HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /v1/files HTTP/1.1\r\n\r\n",
    "bad chunk": b"POST /v1/batches HTTP/1.1\r\nhost: x\r\nKEY\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "chunks without end": b"POST /v1/files HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    b"transfer-encoding: chunked\r\n\r\n5\r\n--b\r\n\r\n",
    "upload that stops": b"POST /v1/files HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    b"content-length: 9000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc",
    "negative length": b"POST /v1/batches HTTP/1.1\r\nhost: x\r\nKEY\r\ncontent-length: -1\r\n\r\n",
    "http 1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
    "pipelined": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 3
    + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_broken_connections_end_and_leave_nothing(hardy: Served, name: str) -> None:
    """Answered below 500 or closed, within the time that a body may be silent; then all is as before."""
    before = kept(hardy)
    place = urlsplit(hardy.url)
    content = RAW[name].replace(b"KEY", b"authorization: Bearer " + hardy.key.encode())
    with socket.create_connection((place.hostname, place.port), timeout=TAKEN_S) as wire:
        answer = b""
        try:
            wire.sendall(content)
            if name in ("no http", "endless header", "lying length", "two lengths", "bad chunk", "negative length"):
                wire.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in answer and (piece := wire.recv(65_536)):
                answer += piece
        except OSError:
            answer = answer or b"closed"
    if answer.startswith(b"HTTP/"):
        assert int(answer.split()[1]) < 500, answer
    if name in ("chunks without end", "upload that stops"):
        assert b" 408 " in answer.partition(b"\r\n")[0]
    limit = time.monotonic() + 10
    while kept(hardy) != before and time.monotonic() < limit:
        time.sleep(0.05)
    assert kept(hardy) == before
    assert httpx2.get(f"{hardy.url}/healthz").status_code == 200


def test_answers_cannot_be_taken_for_pages(hardy: Served, tmp_path: Path) -> None:
    """A file that a client uploads is an attachment from wherever it is opened."""
    line = {"custom_id": "<script>alert(1)</script>"}
    client = hardy.client()
    file = client.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
    answer = client._client.get(f"{hardy.url}/v1/files/{file.id}/content", headers={"api-key": hardy.key})

    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "access-control-allow-origin" not in answer.headers
    client.files.delete(file.id)
