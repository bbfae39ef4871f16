"""Whom the contract is tested against: a server's address, its dialect, its URL families. No emulator in here.

The suite runs against the emulator by default, and unchanged against any server (docs/contract.md):

    make contract BASE_URL=https://NAME.openai.azure.com DIALECT=azure API_KEY=… MODEL=my-batch-deployment
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
OTHER_MODEL: Final = "gpt-4o"
NO_MODEL: Final = "no-such-model"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server.

    Attributes:
        url: Its address without a path.
        model: A deployment (Azure) or model (OpenAI) that serves batches.
        poll_s, patience_s: Between two looks at a batch, and until the test gives up.
    """

    url: str
    dialect: str
    key: str = "any"
    model: str = "gpt-4.1"
    api_version: str = "2024-10-21"
    poll_s: float = 0.01
    patience_s: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One URL family of a target, spoken to in plain HTTP.

    Attributes:
        name: ``openai`` (``/v1``), ``azure`` (``/openai?api-version=``), ``azure-v1`` (``/openai/v1``).
    """

    name: str
    target: Target
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=120), repr=False)

    @property
    def azure(self) -> bool:
        """Whether the dialect is Azure's."""
        return self.name != "openai"

    @property
    def dated(self) -> bool:
        """Whether calls carry an ``api-version``, and errors have Azure's own envelope."""
        return self.name == "azure"

    @property
    def prefix(self) -> str:
        """What stands before ``/files``."""
        return {"openai": "/v1", "azure": "/openai", "azure-v1": "/openai/v1"}[self.name]

    @property
    def endpoint(self) -> str:
        """The ``endpoint`` of a chat batch, and the ``url`` of its lines (F§1.6)."""
        return "/chat/completions" if self.dated else "/v1/chat/completions"

    def call(
        self, verb: str, path: str, *, headers: dict[str, str] | None = None, query: dict[str, str] | None = None,
        api_version: str | None = None, **body: Any,
    ) -> httpx2.Response:  # fmt: skip
        """Send one request; ``headers`` replace the credentials where they name them."""
        credentials = {"api-key": self.target.key} if self.dated else {"authorization": f"Bearer {self.target.key}"}
        version = {"api-version": api_version or self.target.api_version} if self.dated else {}
        return self.client.request(
            verb, self.target.url + self.prefix + path, headers=credentials | (headers or {}),
            params=version | (query or {}), **body,
        )  # fmt: skip

    # -- the usual steps, each of which must succeed ---------------------------------------------------------------------

    def post_file(self, content: bytes, *, name: str = "in.jsonl", **form: str) -> httpx2.Response:
        """``POST /files``."""
        return self.call("POST", "/files", data={"purpose": "batch", **form}, files={"file": (name, content)})

    def upload(self, content: bytes, **form: str) -> str:
        """The id of a new file that is ``processed``."""
        answer = self.post_file(content, **form)
        assert answer.status_code in (200, 201), answer.text
        file_id: str = answer.json()["id"]
        deadline = time.monotonic() + self.target.patience_s
        while self.azure and self.call("GET", f"/files/{file_id}").json()["status"] == "pending":
            assert time.monotonic() < deadline, "the file stays pending"
            time.sleep(self.target.poll_s)
        return file_id

    def post_batch(self, file_id: str, **fields: Any) -> httpx2.Response:
        """``POST /batches`` of chat requests."""
        body = {"input_file_id": file_id, "endpoint": self.endpoint, "completion_window": "24h", **fields}
        return self.call("POST", "/batches", json=body)

    def create(self, file_id: str, **fields: Any) -> dict[str, Any]:
        """A new batch."""
        answer = self.post_batch(file_id, **fields)
        assert answer.status_code in (200, 201), answer.text
        batch: dict[str, Any] = answer.json()
        return batch

    def get(self, batch_id: str) -> dict[str, Any]:
        """A batch now."""
        answer = self.call("GET", f"/batches/{batch_id}")
        assert answer.status_code == 200, answer.text
        batch: dict[str, Any] = answer.json()
        return batch

    def wait(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """A batch once it has ended, or has one of the ``statuses``."""
        deadline = time.monotonic() + self.target.patience_s
        while True:
            batch = self.get(batch_id)
            if batch["status"] in (statuses or ENDED):
                return batch
            assert time.monotonic() < deadline, f"still {batch['status']}"
            assert batch["status"] not in ENDED, f"{batch['status']}: {batch['errors']}"
            time.sleep(self.target.poll_s)

    def run(self, content: bytes, **fields: Any) -> dict[str, Any]:
        """Upload, create, wait for the end."""
        return self.wait(self.create(self.upload(content), **fields)["id"])

    def content(self, file_id: str) -> bytes:
        """A file's bytes."""
        answer = self.call("GET", f"/files/{file_id}/content")
        assert answer.status_code == 200, answer.text
        return answer.content

    def lines(self, file_id: str) -> dict[str, dict[str, Any]]:
        """A result file by custom_id."""
        read = [json.loads(text) for text in self.content(file_id).splitlines()]
        return {one["custom_id"]: one for one in read}

    # -- input ---------------------------------------------------------------------------------------------------------

    def line(self, custom_id: str = "a", text: str = "hello", *, url: str | None = None, **body: Any) -> bytes:
        """One request; a body's field that is ``None`` is left out."""
        whole = {"model": self.target.model, "messages": [{"role": "user", "content": text}], **body}
        kept = {key: value for key, value in whole.items() if value is not None}
        return packed({"custom_id": custom_id, "method": "POST", "url": url or self.endpoint, "body": kept})

    def line_without(self, field: str) -> bytes:
        """A line of which a field is missing."""
        whole = json.loads(self.line())
        del whole[field]
        return packed(whole)


def packed(line: dict[str, Any]) -> bytes:
    """A line of JSONL."""
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def surfaces_of(dialect: str) -> Iterable[str]:
    """The URL families of a dialect."""
    return ("openai",) if dialect == "openai" else ("azure", "azure-v1")


def may_pay() -> bool:
    """Whether the server under test may be asked for what costs more than cents."""
    return os.environ.get("CONTRACT_PAY") == "1"


def given_target() -> Target | None:
    """The server that the environment names, or None: the emulator.

    Raises:
        ValueError: a dialect that does not exist.
    """
    url = os.environ.get("CONTRACT_BASE_URL", "").rstrip("/")
    if not url:
        return None
    dialect = os.environ.get("CONTRACT_DIALECT", "openai")
    if dialect not in ("openai", "azure"):
        raise ValueError(f"DIALECT is openai or azure, not {dialect!r}")
    for prefix in ("/openai/v1", "/openai", "/v1"):
        url = url.removesuffix(prefix)
    given = {
        name: os.environ[f"CONTRACT_{name.upper()}"]
        for name in ("key", "model", "api_version")
        if os.environ.get(f"CONTRACT_{name.upper()}")
    }
    poll_s = float(os.environ.get("CONTRACT_POLL_S") or 60.0)
    patience_s = float(os.environ.get("CONTRACT_PATIENCE_S") or 90_000.0)
    return Target(url=url, dialect=dialect, poll_s=poll_s, patience_s=patience_s, **given)
