"""What the documentation shows is run: the tutorial from top to bottom, README's Python, the examples of clients."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluicegate.testing import local_emulator
from tests.contract.test_clients import Environment, environment, node  # noqa: F401  (fixtures)
from tests.web.conftest import Served

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
TUTORIAL = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
TUTORIAL = TUTORIAL.partition("## In ten minutes\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def clean() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AZURE_", "SLUICEGATE_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


class Terminal:
    """A command that keeps running, as in a terminal of its own; its output is read all the time."""

    def __init__(self, script: str, folder: Path) -> None:
        self.said: list[str] = []
        shown, terminal = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {script.strip().splitlines()[-1]}"], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=terminal, stderr=terminal, env=clean() | dict(exports(script)),
        )  # fmt: skip
        os.close(terminal)
        self.reader = threading.Thread(target=self.read, args=(shown,), daemon=True)
        self.reader.start()
        limit = time.monotonic() + 30
        while not any("ready at " in line for line in self.said):
            assert self.process.poll() is None and time.monotonic() < limit, "".join(self.said)
            time.sleep(0.05)

    def read(self, shown: int) -> None:
        with (
            open(shown, encoding="utf-8") as lines,
            contextlib.suppress(OSError),
        ):  # EIO: nobody has the terminal any more
            self.said.extend(lines)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.reader.join(10)


def exports(script: str) -> list[tuple[str, str]]:
    words = [word for line in script.splitlines() if line.startswith("export ") for word in shlex.split(line)[1:]]
    return [(word.partition("=")[0], word.partition("=")[2]) for word in words]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def shows(expected: str, said: str) -> None:
    """Each line that the text promises stands in what was said, in this order; ``…`` stands for anything."""
    pattern = ".*".join(
        ".*".join(re.escape(piece.strip()) for piece in line.split("…")) for line in expected.strip().splitlines()
    )
    assert re.search(pattern, said, re.DOTALL), f"{expected}\n--- is not what was said:\n{said}"


def test_the_tutorial_works_from_top_to_bottom(tmp_path: Path) -> None:
    """Its files are written, its commands run in its order, its promises compared."""
    text = TUTORIAL
    for port in ("8000", "8080"):
        text = text.replace(f":{port}", f":{(free := free_port())}").replace(f"--port {port}", f"--port {free}")
    terminals: list[Terminal] = []
    said, key = "", ""
    try:
        for kind, content in BLOCK.findall(text):
            if kind == "python":
                name = content.splitlines()[0].removeprefix("# ")
                before = text.partition(f"```python\n{content}")[0].rpartition("```")[2]
                assert f"`{name}`" in before, "it is said how to save it"
                (tmp_path / name).write_text(content)
            elif kind == "text":
                shows(content, said)
            elif content.startswith(("# terminal 1", "# terminal 2")):
                terminals.append(Terminal(content, tmp_path))
                said = "".join(terminals[-1].said)
            else:
                script = f"{content}\nprintf %s $KEY > key"  # the third terminal is one shell: what it exports stays
                done = subprocess.run(
                    ["bash", "-euc", script], cwd=tmp_path, env=clean() | ({"KEY": key} if key else {}), capture_output=True,
                    text=True, timeout=120, check=False,
                )  # fmt: skip
                said, key = done.stdout, (tmp_path / "key").read_text()
                assert done.returncode == 0, done.stdout + done.stderr
    finally:
        for terminal in reversed(terminals):
            terminal.end()
    assert len(terminals) == 2 and key.startswith("sgk_")


def test_the_readmes_python_runs(tmp_path: Path, requests_file: Callable[..., Path]) -> None:
    """As it stands there, with the variables that it names."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    requests_file(20)
    with local_emulator(validating=0.05, start=0.05, finalizing=0.05) as provider:
        variables = {"AZURE_OPENAI_ENDPOINT": provider.url, "AZURE_OPENAI_API_KEY": "any", "SLUICEGATE_POLL": "0.2s",
                     "SLUICEGATE_STATE": str(tmp_path / "state")}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=clean() | variables, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 0\n") and "gpt-4.1" in done.stdout and "'status_code': 200" in done.stdout


def check(said: str, count: int) -> None:
    status, *lines = said.strip().splitlines()
    assert status == "completed"
    assert [json.loads(line)["custom_id"] for line in lines if line] == [f"ask/{i} ä" for i in range(count)]


@pytest.mark.parametrize("name", ["openai_python.py", "azure_python.py", "curl.sh"])
def test_examples_of_clients(gateway: Served, requests_file: Callable[..., Path], name: str) -> None:
    """Each with the real package, at the gateway."""
    program = [sys.executable] if name.endswith(".py") else []
    path = requests_file(5)
    command = [*program, str(CLIENTS / name), gateway.url, gateway.key, str(path)]
    done = subprocess.run(command, env=clean(), capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    check(done.stdout, 5)


@pytest.mark.slow
def test_the_node_example(gateway: Served, requests_file: Callable[..., Path], node: Path) -> None:  # noqa: F811
    """The SDK from npm, which is installed already, and the commands of the tutorial."""
    (script,) = re.findall(r"^```sh\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    shutil.copy(requests_file(5), node / "requests.jsonl")
    checkout = node / "sluicegate"
    checkout.unlink(missing_ok=True)  # the folder is kept from run to run
    checkout.symlink_to(ROOT)
    script = script.replace("npm install openai\n", "").replace("http://127.0.0.1:8000", gateway.url)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=node, env=os.environ | {"KEY": gateway.key}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    check(done.stdout, 5)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["litellm", "instructor"])
def test_examples_with_other_peoples_packages(
    gateway: Served,
    requests_file: Callable[..., Path],
    environment: Environment,  # noqa: F811
    package: str,
) -> None:
    """Installed as they are published."""
    what = str(requests_file(5)) if package == "litellm" else "gpt-4.1"
    command = [str(environment(package)), str(CLIENTS / f"{package}_python.py"), gateway.url, gateway.key, what]
    variables: dict[str, Any] = {k: v for k, v in clean().items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, env=variables | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    if package == "litellm":
        check(done.stdout, 5)
    else:
        assert "completed" in done.stdout and "request-2" in done.stdout
