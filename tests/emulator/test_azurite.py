"""Blob input and output on Microsoft's own emulator of Azure Blob Storage (needs Node.js)."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluicegate.testing import local_emulator
from tests.emulator.clients import AZURE_VERSION, call, line

ACCOUNT = "devstoreaccount1"
# Azurite's well-known key: it is in its documentation and guards nothing.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def account_sas() -> str:
    """An account SAS for containers and blobs."""
    fields = {
        "sv": "2021-12-02",
        "ss": "b",
        "srt": "sco",
        "sp": "rwlc",
        "se": "2099-01-01T00:00:00Z",
        "spr": "https,http",
    }
    signed = "\n".join(
        [ACCOUNT, fields["sp"], fields["ss"], fields["srt"], "", fields["se"], "", fields["spr"], fields["sv"], "", ""]
    )
    signature = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    return urllib.parse.urlencode(fields | {"sig": base64.b64encode(signature).decode()})


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[str]:
    """The blob endpoint of an account."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["npx", "--yes", "--package=azurite", "azurite-blob", "--silent", "--location", str(tmp_path)]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(1_200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "azurite ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def put(url: str, body: bytes = b"", **headers: str) -> None:
    request = urllib.request.Request(url, body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201


@pytest.mark.slow
def test_a_batch_reads_and_writes_blobs_of_azurite(azurite: str) -> None:
    """Input by URL, results in the output folder, an import by URL with its own SAS."""
    sas = account_sas()
    for container in ("inputs", "outputs"):
        put(f"{azurite}/{container}?restype=container&{sas}")
    put(f"{azurite}/inputs/a.jsonl?{sas}", line("x") + line("y"), **{"x-ms-blob-type": "BlockBlob"})
    with local_emulator(clock="hand", blob_sas=sas) as provider:
        url = f"{provider.url}/openai/batches?api-version={AZURE_VERSION}"
        body = {
            "input_blob": f"{azurite}/inputs/a.jsonl", "output_folder": {"url": f"{azurite}/outputs/night"},
            "endpoint": "/chat/completions", "completion_window": "24h",
        }  # fmt: skip
        made = json.loads(call(url, "POST", body)[2])
        provider.until_idle()
        batch = json.loads(call(f"{provider.url}/openai/batches/{made['id']}?api-version={AZURE_VERSION}")[2])
        imported = {"purpose": "batch", "filename": "a.jsonl", "content_url": f"{azurite}/inputs/a.jsonl?{sas}"}
        status, _, _ = call(f"{provider.url}/openai/files/import?api-version={AZURE_VERSION}", "POST", imported)

    assert (batch["status"], batch["request_counts"]["completed"], status) == ("completed", 2, 201)
    with urllib.request.urlopen(f"{batch['output_blob']}?{sas}", timeout=30) as answer:
        assert sorted(json.loads(text)["custom_id"] for text in answer.read().splitlines()) == ["x", "y"]
    # Named, but never written: there are no errors (F§1.11).
    with (
        pytest.raises(urllib.error.HTTPError) as missing,
        urllib.request.urlopen(f"{batch['error_blob']}?{sas}", timeout=30),
    ):
        pass
    missing.value.close()
    assert missing.value.code == 404
