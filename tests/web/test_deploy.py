"""The files that people deploy with: what they name exists, and what they restrict does not hinder."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
import yaml

from sluicegate.cli.main import app
from sluicegate.settings import PREFIX, SDK_NAMES, Settings
from tests.web.conftest import Served, until_ended

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
NOBODY = 65_534


def parsed(words: list[str]) -> None:
    """The command line takes these words."""
    app.parse_args(words, exit_on_error=False, print_error=False)


def known_variables(names: list[str]) -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | set(SDK_NAMES.values())
    assert names and set(names) <= settings, set(names) - settings


def test_the_images_commands_and_settings_exist() -> None:
    """ENTRYPOINT, CMD, ENV; what is copied is there and not ignored."""
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", DOCKERFILE, re.M)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["sluicegate"]
    parsed(command)
    known_variables(re.findall(rf"{PREFIX}\w+(?==)", DOCKERFILE))
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for words in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.M) for name in words.split()}
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER 10001$", DOCKERFILE, re.M)


def test_the_compose_files_commands_and_variables_exist() -> None:
    """Both services start commands that there are."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    parsed(services["provider"]["command"])
    known_variables(list(services["gateway"]["environment"]))
    assert services["gateway"]["read_only"] and services["gateway"]["cap_drop"] == ["ALL"]


def test_the_unit_is_right() -> None:
    """By systemd's own check where it is installed, and its command line by ours."""
    path = ROOT / "deploy" / "sluicegate.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    words = shlex.split(unit["Service"]["ExecStart"])
    parsed(words[1:])
    known_variables([unit["Service"]["Environment"].partition("=")[0]])
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
        assert "Unknown" not in done.stderr, done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="another user needs root and setpriv")
def test_it_runs_as_nobody_with_only_its_data_folder_writable(
    provider: Any, tmp_path: Path, requests_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the container: no home, no working folder to write to."""
    above = [folder for folder in tmp_path.parents if Path(tempfile.gettempdir()) in folder.parents]
    for folder in (tmp_path, *above):
        folder.chmod(0o755)
    state = tmp_path / "data"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    reachable = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c", "import sluicegate"],
        cwd="/", capture_output=True, check=False,
    )  # fmt: skip
    if reachable.returncode:
        pytest.skip("the Python of the tests is not readable for others")
    served = Served(provider.url, state)
    words = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.chdir("/")
    served.prefix = words
    served.start()
    try:
        client = served.client()
        file = client.files.create(file=requests_file(3), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert until_ended(client, batch)[0].status == "completed"
        owners = {path.stat().st_uid for path in state.rglob("*")}
        readable = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        assert owners == {NOBODY} and not readable, readable
    finally:
        served.end()


def healthy(url: str) -> bool:
    """What the image's health check says of a gateway."""
    (words,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE, re.M)
    command = [word.replace("127.0.0.1:8000", urlsplit(url).netloc) for word in json.loads(words)]
    return subprocess.run([sys.executable, *command[1:]], capture_output=True, timeout=60).returncode == 0


def test_the_first_key_is_in_a_file_for_its_owner_and_not_in_the_log(provider: Any, tmp_path: Path) -> None:
    """Once; the next start makes none."""
    served = Served(provider.url, tmp_path / "state").start()
    path = tmp_path / "state" / "first-key"
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert served.client().files.list().data == []
        assert any(f"is in {path}," in line for line in served.said)
        assert healthy(served.url)
    finally:
        served.end()
    assert served.key and served.key not in "".join(served.said) and not healthy(served.url)
    path.unlink()
    again = Served(provider.url, tmp_path / "state").start()
    again.end()
    assert not path.exists() and "first key" not in "".join(again.said)


def test_the_commands_of_the_deployment_page_exist() -> None:
    """For the container and for systemd."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?:/bin/|CONTAINER )sluicegate (.*)$", text, re.M)
    assert len(commands) == 3
    for command in commands:
        parsed(shlex.split(command))
    unit = (ROOT / "deploy" / "sluicegate.service").read_text(encoding="utf-8")
    for path in re.findall(r"=(?:.* )?(/etc/\S+)$", unit, re.M):
        assert path in text


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_it_speaks_https_with_a_certificate_of_its_own(provider: Any, tmp_path: Path) -> None:
    """The official SDK over TLS; plain HTTP gets nothing; a file that is not there is named."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem"), "-out",
            str(tmp_path / "cert.pem")]  # fmt: skip
    subprocess.run(made, capture_output=True, check=True)
    options = ("--set", f"gateway_tls_cert={tmp_path}/cert.pem", "--set", f"gateway_tls_key={tmp_path}/key.pem")
    served = Served(provider.url, tmp_path / "state", options).start()
    try:
        assert served.url.startswith("https://")
        import ssl

        trusting = httpx2.Client(verify=ssl.create_default_context(cafile=str(tmp_path / "cert.pem")))
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, http_client=trusting) as client:
            assert client.files.list().data == []
        assert healthy(served.url)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(served.url.replace("https", "http") + "/healthz")
    finally:
        served.end()
    with pytest.raises(RuntimeError, match=r"gateway_tls_cert: .* cannot be read"):
        Served(provider.url, tmp_path / "state", ("--set", "gateway_tls_cert=/nowhere.pem")).start()
