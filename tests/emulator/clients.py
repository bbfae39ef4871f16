"""The official SDK and plain HTTP against an emulator that runs, and the lines that they send."""

import io
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai

from sluicegate.testing import RunningEmulator

AZURE_VERSION = "2024-10-21"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server in a thread."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def line(custom_id: str, text: str = "hello", url: str = "/v1/chat/completions", **body: Any) -> bytes:
    asked: dict[str, Any] = {"model": "gpt-4.1", **body}
    if url.endswith("chat/completions"):
        asked["messages"] = [{"role": "user", "content": text}]
    whole = {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}
    return json.dumps(whole).encode() + b"\n"


def azure(provider: RunningEmulator, **more: Any) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=provider.url, api_version=AZURE_VERSION, max_retries=0, **({"api_key": "any"} | more)
    )


def plain(provider: RunningEmulator, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.openai_url, api_key=key, max_retries=0)


def upload(client: openai.OpenAI, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch").id


def create(client: openai.OpenAI, file_id: str, endpoint: Any = "/v1/chat/completions") -> openai.types.Batch:
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")


def call(url: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"api-key": "any", "content-type": "application/json"} | headers)
    request.method = method
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()
