"""Other people's clients, each as it is published, in an environment of its own; and curl.

The official SDKs perform the same calls (``drivers/``) and print what they saw; the test compares it with what is
promised. Environments are kept in pytest's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.target import Surface

DRIVERS: Final = Path(__file__).with_name("drivers")
INSTALL_S, RUN_S = 600, 120
Environment = Callable[..., Path]

PROMISED: Final[dict[str, Any]] = {
    "uploaded": ["file", True, "in.jsonl", "batch"], "processed": "processed", "retrieved": True, "listed": True,
    "same_content": True, "streamed_content": True, "ascending": True, "wrong_key": ["AuthenticationError", 401],
    "bad_request": ["BadRequestError", 400], "async": ["completed", 2, True, 409, True], "unknown_file": ["NotFoundError", 404],
    "created": ["batch", "validating", "24h", {"who": "driver"}], "ended": ["completed", 2, 2, 0],
    "answered": ["2", "a b/ü"], "pages": [True, True], "unknown_batch": ["NotFoundError", 404],
    "cancel_ended": ["ConflictError", 409], "raw": "application/json", "upload": ["pending", "completed", True],
    "upload_cancelled": "cancelled", "deleted": True, "gone": ["NotFoundError", 404],
}  # fmt: skip
OPENAI_ONLY: Final = {"ascending"}
"""``order`` is OpenAI's; Azure has ``$orderby`` (F§1.2)."""
LATER: Final = {"upload", "upload_cancelled", "pages"}


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest) -> Environment:
    """``environment("openai<2")``: the Python of a virtual environment that has these packages."""

    def make(*packages: str) -> Path:
        name = hashlib.sha256(repr((sys.version, packages)).encode()).hexdigest()[:16]
        folder = Path(request.config.cache.mkdir(f"contract-{name}"))
        python = folder / "bin" / "python"
        if not (folder / "installed").exists():
            run([sys.executable, "-m", "venv", "--clear", str(folder)], timeout=INSTALL_S)
            run([str(python), "-m", "pip", "install", "--quiet", *packages], timeout=INSTALL_S)
            (folder / "installed").touch()
        return python

    return make


def run(
    command: list[str], *, timeout: int = RUN_S, cwd: Path | None = None, extra: dict[str, str] | None = None
) -> str:
    """A program's standard output; it must succeed, and knows nothing of this environment's packages and keys."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON", "OPENAI", "AZURE", "CONTRACT"))
    }
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False,
        env=kept | (extra or {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def arguments(surface: Surface) -> list[str]:
    """What every driver is told."""
    target = surface.target
    return [surface.name, target.url, target.key, target.model, target.api_version]


def last_line(text: str) -> dict[str, Any]:
    """The JSON that a driver prints at the end."""
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


# -- official SDKs -----------------------------------------------------------------------------------------------------

SDKS: Final = {
    # 1.0 to 1.18 know no batches; 1.19 knows no list and no uploads yet, and needs the httpx of its time.
    "oldest 1": (("openai==1.19.0", "httpx<0.28"), LATER),
    "newest 1": (("openai<2",), set()),
    "oldest 2": (("openai==2.0.0",), set()),
    "newest 2": (("openai<3",), set()),
    "oldest 3": (("openai==3.0.0",), set()),
    "newest 3": (("openai>=3,<4",), set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("version", SDKS)
def test_every_major_of_the_official_python_sdk(environment: Environment, surface: Surface, version: str) -> None:
    """Every call and every page; nothing is seen but what is promised."""
    packages, lacks = SDKS[version]
    said = last_line(run([str(environment(*packages)), str(DRIVERS / "python_sdk.py"), *arguments(surface)]))

    assert said["version"].startswith(version[-1] + ".")
    assert said["seen"] == promised(surface, but=lacks)


def promised(surface: Surface, *, but: set[str]) -> dict[str, Any]:
    """What a driver sees on a surface, but for what it lacks."""
    missing = but | (OPENAI_ONLY if surface.azure else set())
    return {name: value for name, value in PROMISED.items() if name not in missing}


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Path:
    """A folder in which Node finds the official SDK."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this machine")
    folder = Path(request.config.cache.mkdir("contract-node"))
    if not (folder / "installed").exists():
        run(["npm", "init", "--yes"], cwd=folder, timeout=INSTALL_S)
        run(["npm", "install", "--silent", "openai"], cwd=folder, timeout=INSTALL_S)
        (folder / "installed").touch()
    return folder


@pytest.mark.slow
def test_the_official_node_sdk(node: Path, surface: Surface) -> None:
    """The same calls; the file goes up from a stream: before its purpose, chunked, without a length."""
    shutil.copy(DRIVERS / "node_sdk.mjs", node)
    said = last_line(run(["node", "node_sdk.mjs", *arguments(surface)], cwd=node))

    assert said["seen"] == promised(surface, but={"async"})


# -- programs that people point at a batch service -----------------------------------------------------------------------

THREE: Final = ["request-0", "request-1", "request-2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litellm", "instructor", "langbatch"])
def test_third_party_program(environment: Environment, surface: Surface, name: str) -> None:
    """A whole batch of three requests: every id comes back, and the batch is in the list."""
    if surface.name == "azure-v1" and name != "instructor":
        pytest.skip("its driver has one way to Azure, the dated surface")
    if surface.name == "azure" and name == "instructor":
        pytest.skip("it makes a plain OpenAI() client, which cannot speak to the dated surface")
    driver = DRIVERS / f"third_party_{name}.py"
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    said = last_line(run([str(environment(name)), str(driver), *arguments(surface)], extra=offline))

    assert said["status"] == "completed"
    assert said["ids"] == THREE
    assert said["listed"]


@pytest.mark.slow
def test_the_openai_batch_command(environment: Environment, openai_surface: Surface, tmp_path: Path) -> None:
    """``python -m openai_batch.run``: prompts in, answers in a file (it needs httpx and does not say so)."""
    python = str(environment("openai-batch", "httpx"))
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    model = ["--model", openai_surface.target.model]
    run([python, "-m", "openai_batch.create_batch_input", *model, "prompts.txt", "in.jsonl"], cwd=tmp_path)
    where = ["--base-url", f"{openai_surface.target.url}/v1", "--api-key", openai_surface.target.key]
    said = run([python, "-m", "openai_batch.run", *where, "--create", "in.jsonl"], cwd=tmp_path)
    batch_id = next(word for word in said.replace(".", " ").split() if word.startswith("batch_"))
    openai_surface.wait(batch_id)  # it looks once a minute only
    resumed = ["--resume", batch_id, "-o", "out.jsonl", "-e", "err.jsonl", "in.jsonl"]
    run([python, "-m", "openai_batch.run", *where, *resumed], cwd=tmp_path)

    sent = [json.loads(line)["custom_id"] for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    back = [json.loads(line)["custom_id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(back) == sorted(sent)
    assert len(sent) == 3


# -- curl --------------------------------------------------------------------------------------------------------------


def curl(surface: Surface, *words: str, path: str, query: str = "") -> tuple[int, bytes]:
    """(status, body) of a call by curl."""
    credentials = f"api-key: {surface.target.key}" if surface.dated else f"Authorization: Bearer {surface.target.key}"
    version = f"api-version={surface.target.api_version}&" if surface.dated else ""
    url = f"{surface.target.url}{surface.prefix}{path}?{version}{query}"
    command = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", "-H", credentials, *words, url]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S, check=True).stdout
    body, _, status = said.rpartition(b"\n")
    return int(status), body


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_as_the_documents_write_it(surface: Surface, tmp_path: Path) -> None:
    """Upload, create, look, fetch, cancel, delete with the commands of the providers' pages."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(surface.line("a") + surface.line("b"))
    made = 201 if surface.dated else 200
    status, body = curl(surface, "-F", "purpose=batch", "-F", f"file=@{path}", path="/files")
    file_id = json.loads(body)["id"]
    assert status == made
    assert curl(surface, path=f"/files/{file_id}/content") == (200, path.read_bytes())

    fields = {"input_file_id": file_id, "endpoint": surface.endpoint, "completion_window": "24h"}
    created = curl(surface, "-H", "Content-Type: application/json", "-d", json.dumps(fields), path="/batches")
    assert created[0] == made
    batch = surface.wait(json.loads(created[1])["id"])
    assert batch["status"] == "completed"
    status, output = curl(surface, path=f"/files/{batch['output_file_id']}/content")
    assert (status, len(output.splitlines())) == (200, 2)
    assert curl(surface, "-X", "POST", path=f"/batches/{batch['id']}/cancel")[0] == 409
    assert curl(surface, "-X", "DELETE", path=f"/files/{file_id}")[0] == 200
    assert curl(surface, path=f"/files/{file_id}")[0] == 404


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_lists_pages_ranges_and_uploads_in_parts(surface: Surface, tmp_path: Path) -> None:
    """What scripts do besides: two pages of a list, some bytes of a file, a file in two parts."""
    content = surface.line("a") + surface.line("b")
    file_id = surface.upload(content)
    made = [surface.create(file_id)["id"] for _ in range(2)]
    status, body = curl(surface, path="/batches", query="limit=1")
    first = json.loads(body)
    assert (status, len(first["data"]), first["has_more"]) == (200, 1, True)
    status, body = curl(surface, path="/batches", query=f"limit=1&after={first['last_id']}")
    assert status == 200
    assert {one["id"] for one in (*first["data"], *json.loads(body)["data"])} == set(made)
    assert curl(surface, "-r", "5-9", path=f"/files/{file_id}/content") == (206, content[5:10])

    fields = {"filename": "b.jsonl", "purpose": "batch", "bytes": len(content), "mime_type": "application/jsonl"}
    as_json = ["-H", "Content-Type: application/json", "-d"]
    begun = json.loads(curl(surface, *as_json, json.dumps(fields), path="/uploads")[1])
    parts = []
    for n, piece in enumerate((content[:50], content[50:])):
        path = tmp_path / f"part-{n}"
        path.write_bytes(piece)
        parts.append(json.loads(curl(surface, "-F", f"data=@{path}", path=f"/uploads/{begun['id']}/parts")[1])["id"])
    done = curl(surface, *as_json, json.dumps({"part_ids": parts}), path=f"/uploads/{begun['id']}/complete")
    assert curl(surface, path=f"/files/{json.loads(done[1])['file']['id']}/content") == (200, content)
