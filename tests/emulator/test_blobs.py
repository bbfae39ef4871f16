"""Blobs that a batch reads and writes, in a local folder and over HTTP."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sluicegate.testing import local_emulator
from tests.emulator.clients import AZURE_VERSION, call, line


def test_a_batch_may_read_a_blob_and_write_to_a_folder_of_blobs(tmp_path: Path) -> None:
    """Azure's blob input (F§1.11), on a local folder; a blob changed on the way is ``input_modified``."""
    place = tmp_path / "acct" / "in"
    place.mkdir(parents=True)
    base = "https://acct.blob.core.windows.net"
    with local_emulator(blobs=str(tmp_path), clock="hand") as provider:
        url = f"{provider.url}/openai/batches?api-version={AZURE_VERSION}"
        ends = []
        for name, changed in (("a.jsonl", False), ("b.jsonl", True), ("none.jsonl", False)):
            if name != "none.jsonl":
                (place / name).write_bytes(line("x") + line("y"))
            body = {
                "input_blob": f"{base}/in/{name}", "output_folder": {"url": f"{base}/out"},
                "endpoint": "/chat/completions", "completion_window": "24h",
            }  # fmt: skip
            status, _, text = call(url, "POST", body)
            made = json.loads(text)
            assert (status, made["input_file_id"], made["input_blob"]) == (201, None, body["input_blob"])
            if changed:
                (place / name).write_bytes(line("z"))
            provider.until_idle()
            _, _, text = call(f"{provider.url}/openai/batches/{made['id']}?api-version={AZURE_VERSION}")
            ends.append(json.loads(text))

        assert [one["status"] for one in ends] == ["completed", "failed", "failed"]
        assert [one["errors"]["data"][0]["code"] for one in ends[1:]] == ["input_modified", "input_no_permissions"]
        output = tmp_path / "acct" / ends[0]["output_blob"].removeprefix(f"{base}/")
        assert sorted(json.loads(text)["custom_id"] for text in output.read_text().splitlines()) == ["x", "y"]
        assert not (tmp_path / "acct" / ends[0]["error_blob"].removeprefix(f"{base}/")).exists()
        status, _, _ = call(url, "POST", body | {"metadata": {"a": "b"}})
        assert status == 400


class _BlobServer(BaseHTTPRequestHandler):
    """As much of a blob service as a batch uses: whole blobs, and only with the right signature."""

    blobs: ClassVar[dict[str, bytes]] = {}

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.blobs.get(path)
        if query != "sig=good":
            self._answer(403)
        elif body is None:
            self._answer(404)
        else:
            self._answer(200, body, etag=hashlib.md5(body).hexdigest())

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers["content-length"]))
        if query != "sig=good" or self.headers["x-ms-blob-type"] != "BlockBlob":
            self._answer(403)
            return
        self.blobs[path] = body
        self._answer(201)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.mark.parametrize(("sas", "end"), [("sig=good", "completed"), ("sig=bad", "failed")])
def test_blobs_are_read_and_written_over_http_with_the_configured_signature(sas: str, end: str) -> None:
    """As to Azurite: GET, HEAD, PUT of a block blob; without the right ``blob_sas`` the batch fails."""
    _BlobServer.blobs = {"/acct/in/a.jsonl": line("x")}
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), _BlobServer) as server,
        local_emulator(blob_sas=sas, clock="hand") as provider,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/acct"
        url = f"{provider.url}/openai/batches?api-version={AZURE_VERSION}"
        body = {
            "input_blob": f"{base}/in/a.jsonl", "output_folder": {"url": f"{base}/out"}, "endpoint": "/chat/completions",
            "completion_window": "24h",
        }  # fmt: skip
        made = json.loads(call(url, "POST", body)[2])
        provider.until_idle()
        batch = json.loads(call(f"{provider.url}/openai/batches/{made['id']}?api-version={AZURE_VERSION}")[2])
        server.shutdown()

    assert batch["status"] == end
    written = [path for path in _BlobServer.blobs if path.endswith("/results.jsonl")]
    assert len(written) == (end == "completed")
    if written:
        assert batch["output_blob"].endswith(written[0])
        assert b'"custom_id":"x"' in _BlobServer.blobs[written[0]]
