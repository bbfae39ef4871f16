"""Input and output in blob storage: a real server on a real socket; URLs that lead elsewhere lead nowhere."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from sluicegate.adapters.remote_blobs import HttpBlobs
from sluicegate.core.blob_urls import parse_prefixes
from sluicegate.errors import BlobRefused, BlobUnavailable
from sluicegate.service.desk import FETCHES
from sluicegate.testing import local_emulator
from tests.web.conftest import Served, until_ended
from tests.web.test_tenants import client_of, keys

SAS = "sv=2024&sig=c2VjcmV0"


class Storage:
    """PUT and GET of whole blobs for who brings the signature; ``down`` answers 503."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.hosts: list[str] = []
        self.down = self.sealed = False
        self.moved: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _allowed(self) -> str | None:
                parts = urlsplit(self.path)
                outer.hosts.append(self.headers["host"])
                if outer.down or parts.query != SAS:
                    self._answer(503 if outer.down else 403)
                    return None
                return parts.path

            def do_GET(self) -> None:
                path = self._allowed()
                if path in outer.moved:
                    self._answer(302, location=outer.moved[path])
                elif path is not None:
                    self._answer(200 if path in outer.blobs else 404, outer.blobs.get(path, b""))

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                path = self._allowed()
                if path is not None and outer.sealed:
                    self._answer(403)
                elif path is not None:
                    outer.blobs[path] = content
                    self._answer(201 if self.headers["x-ms-blob-type"] == "BlockBlob" else 400)

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def storage() -> Iterator[Storage]:
    """A storage server."""
    made = Storage()
    yield made
    made.close()


def served_by(storage: Storage, provider: str, folder: Path, *more: str) -> Served:
    options = (
        "--limit",
        "30K",
        "--set",
        f"gateway_blobs={storage.url}/account/batches",
        "--set",
        f"gateway_blob_sas={SAS}",
    )
    return Served(provider, folder, (*options, *more)).start()


PRIVATE = ("--set", "gateway_blobs_private=true")


@pytest.fixture
def served(storage: Storage, tmp_path: Path) -> Iterator[Served]:
    """A gateway that may use one container of it."""
    with local_emulator(limit="30K", validating="0.1s", start="0.1s", finalizing="0.1s") as provider:
        made = served_by(storage, provider.url, tmp_path / "state", *PRIVATE)
        yield made
        made.end()


def call(served: Served, method: str, path: str, **content: Any) -> httpx2.Response:
    return httpx2.request(
        method, f"{served.url}/openai{path}?api-version=2025-03-01-preview", headers={"api-key": served.key},
        timeout=30, **content,
    )  # fmt: skip


def create(served: Served, storage: Storage, name: str = "in.jsonl", **more: Any) -> httpx2.Response:
    body = {
        "input_blob": f"{storage.url}/account/batches/{name}", "output_folder": {"url": f"{storage.url}/account/batches/out"},
        "endpoint": "/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    return call(served, "POST", "/batches", json=body | more)


def ended(served: Served, id_: str, seconds: float = 60.0) -> dict[str, Any]:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        batch: dict[str, Any] = call(served, "GET", f"/batches/{id_}").json()
        if batch["status"] in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.1)
    raise AssertionError(batch)


def lines(count: int) -> bytes:
    return b"\n".join(
        json.dumps({
            "custom_id": f"b{i}", "method": "POST", "url": "/chat/completions",
            "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"{i} ä"}]},
        }).encode()
        for i in range(count)
    )  # fmt: skip


def test_a_batch_from_blob_to_blob(served: Served, storage: Storage) -> None:
    """Results in order where Azure puts them; no file ids; the signature is nowhere but in the call."""
    storage.blobs["/account/batches/in.jsonl"] = lines(20)

    made = create(served, storage)
    assert made.status_code == 201
    batch = ended(served, made.json()["id"])

    assert batch["status"] == "completed" and batch["input_file_id"] is None and batch["output_file_id"] is None
    assert batch["input_blob"].endswith("/in.jsonl") and batch["request_counts"]["completed"] == 20
    output, errors = (urlsplit(batch[name]).path for name in ("output_blob", "error_blob"))
    assert output.startswith("/account/batches/out/") and output.endswith("/results.jsonl")
    assert [json.loads(line)["custom_id"] for line in storage.blobs[output].splitlines()] == [
        f"b{i}" for i in range(20)
    ]
    assert storage.blobs[errors] == b""
    assert not list((served.state / "files").iterdir())
    kept = b"".join(path.read_bytes() for path in served.state.rglob("*") if path.is_file())
    assert b"c2VjcmV0" not in kept + "".join(served.said).encode() + json.dumps(batch).encode()


def test_storage_that_is_away_is_a_reason_to_wait(served: Served, storage: Storage) -> None:
    """Neither the input nor the results are lost by it."""
    storage.blobs["/account/batches/in.jsonl"] = lines(3)
    storage.down = True
    id_ = create(served, storage).json()["id"]
    limit = time.monotonic() + 20
    while "blob storage" not in str(call(served, "GET", f"/batches/{id_}").json()["sluicegate"]["reasons"]):
        assert time.monotonic() < limit
        time.sleep(0.1)
    storage.down = False
    assert ended(served, id_)["status"] == "completed"


def test_results_that_may_not_be_written_stay_files(served: Served, storage: Storage) -> None:
    """The answers are paid for; the error says where they were meant to go."""
    storage.blobs["/account/batches/in.jsonl"] = lines(3)
    storage.sealed = True

    batch = ended(served, create(served, storage).json()["id"])

    (*_, problem) = batch["errors"]["data"]
    assert batch["status"] == "completed" and problem["code"] == "output_no_permissions"
    content = call(served, "GET", f"/files/{batch['output_file_id']}/content").text
    assert [json.loads(line)["custom_id"] for line in content.splitlines()] == ["b0", "b1", "b2"]


def import_of(served: Served, url: str, **more: Any) -> httpx2.Response:
    body = {"purpose": "batch", "filename": "in.jsonl", "content_url": url}
    return call(served, "POST", "/files/import", json=body | more)


def test_a_file_is_imported_with_the_clients_own_signature_or_the_operators(served: Served, storage: Storage) -> None:
    """201 with its place, lines and bytes; a batch of it runs; no signature is kept; OpenAI's family has no such call."""
    storage.blobs["/account/batches/in.jsonl"] = lines(3)
    url = f"{storage.url}/account/batches/in.jsonl"

    wrong = import_of(served, f"{url}?sig=wrong")
    made = [import_of(served, url), import_of(served, f"{url}?{SAS}")]
    elsewhere = httpx2.post(f"{served.url}/v1/files/import", headers={"api-key": served.key}, json={})

    assert wrong.status_code == 400 and wrong.json()["error"]["code"] == "fileImportFailed"
    assert "wrong" not in wrong.text and elsewhere.status_code in (404, 405)
    for answer in made:
        file = answer.json()
        assert answer.status_code == 201 and answer.headers["location"].endswith(f"/openai/files/{file['id']}")
        assert file["bytes"] == len(lines(3)) and file["status"] == "processed"
    body = {"input_file_id": file["id"], "endpoint": "/chat/completions", "completion_window": "24h"}
    batch = ended(served, call(served, "POST", "/batches", json=body).json()["id"])
    assert batch["status"] == "completed" and batch["request_counts"]["completed"] == 3
    stored = b"".join(path.read_bytes() for path in served.state.glob("sluicegate.sqlite3*"))
    assert b"c2VjcmV0" not in stored


@pytest.mark.parametrize(
    "change",
    [
        {"content_url": "http://169.254.169.254/metadata"}, {"content_url": "http://127.0.0.1:1/account/batches/x?sig=1"},
        {"content_url": "file:///etc/passwd"}, {"content_url": 7}, {"content_url": None}, {"purpose": "assistants"},
        {"filename": "in.csv"}, {"filename": 7}, {"expires_after": {"anchor": "created_at", "seconds": 1}},
        {"expires_after": []},
    ],
)  # fmt: skip
def test_imports_from_elsewhere_or_with_wrong_fields_are_refused_at_once(
    served: Served, storage: Storage, change: dict[str, Any]
) -> None:
    """400, nobody is asked anything, nothing is kept."""
    answer = import_of(served, f"{storage.url}/account/batches/in.jsonl", **change)

    assert answer.status_code == 400
    assert not storage.hosts and not list((served.state / "inputs").iterdir())


def test_an_import_from_storage_that_does_not_answer_is_to_be_repeated(served: Served, storage: Storage) -> None:
    """503 with the hint that the SDKs understand."""
    storage.down = True

    answer = import_of(served, f"{storage.url}/account/batches/in.jsonl")

    assert answer.status_code == 503 and answer.headers["x-should-retry"] == "true" and answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_blob": "http://169.254.169.254/metadata"}, "input_blob"), ({"input_blob": 7}, "input_blob"),
        ({"input_blob": "http://127.0.0.1:1/account/batches/x"}, "input_blob"),
        ({"output_folder": {"url": "https://evil.net/x"}}, "output_folder"), ({"output_folder": None}, "output_folder"),
        ({"metadata": {"a": "b"}}, "metadata"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_at_once(
    served: Served, storage: Storage, change: dict[str, Any], param: str
) -> None:
    """400, and nobody is asked anything."""
    answer = create(served, storage, **change)
    assert answer.status_code == 400 and param in answer.text
    assert not storage.hosts


def test_blobs_that_are_not_there_or_lead_elsewhere_fail_the_batch(served: Served, storage: Storage) -> None:
    """404, and redirects, which are not followed: the server that they name is never asked."""
    elsewhere = Storage()
    storage.moved["/account/batches/moved.jsonl"] = f"{elsewhere.url}/account/batches/x"
    try:
        for name, why in (("none.jsonl", "does not exist"), ("moved.jsonl", "redirects are not followed")):
            batch = ended(served, create(served, storage, name).json()["id"])
            (problem,) = batch["errors"]["data"]
            assert (
                batch["status"] == "failed" and problem["code"] == "input_no_permissions" and why in problem["message"]
            )
        assert not elsewhere.hosts
    finally:
        elsewhere.close()


def test_hosts_with_private_addresses_are_not_used_unless_the_operator_says_so(
    storage: Storage, tmp_path: Path
) -> None:
    """The default is the public internet."""
    with local_emulator() as provider:
        served = served_by(storage, provider.url, tmp_path / "state")
        try:
            batch = ended(served, create(served, storage).json()["id"])
            assert "not on the public internet" in batch["errors"]["data"][0]["message"]
            assert not storage.hosts
        finally:
            served.end()


async def test_the_connection_goes_to_the_address_that_was_looked_at(storage: Storage, tmp_path: Path) -> None:
    """DNS rebinding: a name is resolved once; one bad address among good ones is enough to refuse."""
    answers = [["127.0.0.1"], ["20.60.1.1", "169.254.169.254"], ["::ffff:10.0.0.1"]]

    async def resolver(host: str, port: int) -> list[str]:
        assert host == "store.example"
        return answers.pop(0)

    prefixes = parse_prefixes(f"http://store.example:{storage.port}/account/batches")
    url = f"http://store.example:{storage.port}/account/batches/in.jsonl"
    storage.blobs["/account/batches/in.jsonl"] = b"{}"

    private = HttpBlobs(prefixes, sas=SAS, private=True, resolver=resolver)
    assert await private.fetch(url, tmp_path / "x", bytes_max=2) == 2
    assert storage.hosts == [f"store.example:{storage.port}"] and len(answers) == 2
    public = HttpBlobs(prefixes, sas=SAS, resolver=resolver)
    for _ in range(2):
        with pytest.raises(BlobRefused, match="public internet"):
            await public.fetch(url, tmp_path / "x", bytes_max=2)
    assert not answers and len(storage.hosts) == 1


async def test_blobs_that_are_too_large_or_cannot_be_had_now(storage: Storage, tmp_path: Path) -> None:
    """The first is for good, the other not."""
    url = f"{storage.url}/account/batches/in.jsonl"
    storage.blobs["/account/batches/in.jsonl"] = b"x" * 11
    blobs = HttpBlobs(parse_prefixes(f"{storage.url}/account/batches"), sas=SAS, private=True)

    with pytest.raises(BlobRefused, match="more than 10 bytes"):
        await blobs.fetch(url, tmp_path / "x", bytes_max=10)
    storage.close()
    with pytest.raises(BlobUnavailable, match="ConnectError") as caught:
        await blobs.fetch(url, tmp_path / "x", bytes_max=100)
    assert "sig=" not in str(caught.value)


def test_storage_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    """More blobs than are fetched at once, none of which ever comes: others' files and blobs are looked at, and cancels end."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, local_emulator(start="0.1s") as provider:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = ("--set", f"gateway_blobs={url}/account/batches", *PRIVATE)
        served = Served(provider.url, tmp_path / "state", settings).start()
        storage = Storage()
        storage.url = url
        try:
            hanging = [create(served, storage).json()["id"] for _ in range(FETCHES + 1)]
            other = client_of(served, keys(served, "create", "--tenant", "bob")["key"])
            file = other.files.create(file=("in.jsonl", lines(2)), purpose="batch")
            batch = other.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            assert until_ended(other, batch, 40)[0].status == "completed"
            other.close()
            call(served, "POST", f"/batches/{hanging[0]}/cancel")
            assert ended(served, hanging[0], 20)["status"] == "cancelled"
        finally:
            served.end()
            storage.close()


async def test_a_blob_that_comes_byte_by_byte_is_given_up_in_time(tmp_path: Path) -> None:
    """Each byte comes soon enough, the whole never would."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as dripping:

        def drip() -> None:
            connection, _ = dripping.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                while not done.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{dripping.getsockname()[1]}/account/batches"
        blobs = HttpBlobs(parse_prefixes(url), private=True, whole_s=0.5)
        try:
            with pytest.raises(BlobUnavailable, match="TimeoutError"):
                await blobs.fetch(f"{url}/in.jsonl", tmp_path / "x", bytes_max=10_000_000)
        finally:
            done.set()
            thread.join(10)


def test_an_input_that_is_more_than_its_tenant_may_have_open_ends_the_batch(storage: Storage, tmp_path: Path) -> None:
    """At the create nothing is known of it; once it is here, it is held to the limits of any other."""
    limits = ("--set", "gateway_tenant_requests=10", "--set", "gateway_tenant_tokens=60")
    with local_emulator(limit="30K") as provider:
        served = served_by(storage, provider.url, tmp_path / "state", *PRIVATE, *limits)
        try:
            told = {}
            for count in (11, 10, 5):
                storage.blobs[f"/account/batches/{count}.jsonl"] = lines(count)
                batch = ended(served, create(served, storage, f"{count}.jsonl").json()["id"])
                told[count] = [
                    (one["code"], one["param"], one["message"]) for one in (batch["errors"] or {"data": []})["data"]
                ]
        finally:
            served.end()

    assert told[5] == []
    assert [one[:2] for one in told[11] + told[10]] == [("quota_exceeded", "input_blob")] * 2
    assert told[11][0][2].startswith("The input has about 11 requests; 10 may be open")
    assert "tokens; 60 may be open" in told[10][0][2]
