"""Entra tokens: a local issuer with real keys, the official SDK, and everything that is not a good token."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import openai
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.web.conftest import Served, until_ended

ISSUER, AUDIENCE = "https://login.example/v2.0", "api://sluicegate"


class Issuer:
    """Publishes keys over HTTP and signs tokens with them."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = json.dumps({"keys": [issuer.public(kid) for kid in issuer.keys]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.add("one")

    def add(self, kid: str) -> None:
        self.keys[kid] = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    def public(self, kid: str) -> dict[str, Any]:
        found: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[kid].public_key(), as_dict=True)
        return found | {"kid": kid, "use": "sig", "alg": "RS256"}

    def token(self, kid: str = "one", *, key: Any = None, alg: str = "RS256", drop: str = "", **claims: Any) -> str:
        now = int(time.time())
        content = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "azp": "team-a",
            "oid": "u1",
        }
        content |= claims
        content.pop(drop, None)
        return jwt.encode(content, key or self.keys[kid], algorithm=alg, headers={"kid": kid})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def trusting(provider: Any, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that takes the issuer's tokens beside its own keys."""
    given = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.url}
    options = [word for name, value in given.items() for word in ("--set", f"gateway_entra_{name}={value}")]
    served = Served(provider.url, tmp_path_factory.mktemp("entra"), tuple(options)).start()
    yield served
    served.end()


def client(served: Served, token: str) -> openai.OpenAI:
    served.clients.append(openai.OpenAI(base_url=f"{served.url}/v1", api_key=token, max_retries=0))
    return served.clients[-1]  # type: ignore[return-value]


def test_a_good_token_is_its_tenant_and_role(
    trusting: Served, issuer: Issuer, requests_file: Callable[..., Path]
) -> None:
    """A batch with a token; another tenant does not see it, an admin does, an observer changes nothing."""
    mine = client(trusting, issuer.token())
    file = mine.files.create(file=requests_file(2), purpose="batch")
    batch = mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert until_ended(mine, batch)[0].status == "completed"

    other = client(trusting, issuer.token(azp="team-b"))
    with pytest.raises(openai.NotFoundError):
        other.batches.retrieve(batch.id)
    admin = client(trusting, issuer.token(azp="staff", roles=["sluicegate.admin"]))
    assert admin.batches.retrieve(batch.id).id == batch.id
    with pytest.raises(openai.PermissionDeniedError):
        client(trusting, issuer.token(roles=["sluicegate.observer"])).files.delete(file.id)
    assert trusting.client().files.list().data == []  # keys still work, and see their own tenant only


def signed(content: dict[str, Any], secret: bytes | None) -> str:
    """A token as no library makes it: without a signature, or with the public key taken for a shared secret."""
    head = {"alg": "none" if secret is None else "HS256", "kid": "one"}
    text = ".".join(plain(json.dumps(one).encode()) for one in (head, content))
    return f"{text}.{'' if secret is None else plain(hmac.digest(secret, text.encode(), 'sha256'))}"


def plain(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    stranger = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    public = issuer.keys["one"].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "azp": "team-a"}
    good = issuer.token()
    return {
        "expired": issuer.token(exp=now - 120), "not yet": issuer.token(nbf=now + 300),
        "wrong audience": issuer.token(aud="api://other"), "wrong issuer": issuer.token(iss="https://evil.example"),
        "no expiry": issuer.token(drop="exp"), "no audience": issuer.token(drop="aud"),
        "no tenant": issuer.token(drop="azp"), "tenant no name": issuer.token(azp="../../x y"),
        "tenant no text": issuer.token(azp=["team-a"]), "signed by a stranger": issuer.token(key=stranger),
        "signed with the public key": signed(whole, public), "unsigned": signed(whole, None),
        "another algorithm": issuer.token(alg="RS512"), "unknown key": issuer.token("one", key=stranger) + "x",
        "changed": good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"), "no token": "a.b.c",
        "long": "a." + "b" * 30_000 + ".c",
    }  # fmt: skip


def test_what_is_not_a_good_token_is_refused(trusting: Served, issuer: Issuer) -> None:
    """401 for each, and nothing that tells why."""
    texts = set()
    for name, token in bad_tokens(issuer).items():
        with pytest.raises(openai.AuthenticationError) as refused:
            client(trusting, token).files.list()
        texts.add(refused.value.message)
        assert refused.value.status_code == 401, name
    assert len(texts) == 1


def test_an_issuers_keys_are_asked_for_seldom(trusting: Served, issuer: Issuer) -> None:
    """A flood of unknown key ids costs no flood of requests."""
    client(trusting, issuer.token()).files.list()
    before = issuer.asked
    for i in range(20):
        with pytest.raises(openai.AuthenticationError):
            client(trusting, issuer.token(f"unknown-{i}", key=issuer.keys["one"])).files.list()

    assert issuer.asked - before <= 1


def test_keys_from_a_file_and_keys_that_cannot_be_read(provider: Any, issuer: Issuer, tmp_path: Path) -> None:
    """A file works; an address that does not answer lets nobody in by token, and keys of ours still work."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [issuer.public("one")]}))
    for place, good in ((str(path), True), ("http://127.0.0.1:9/keys", False)):
        given = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": place}
        options = [word for name, value in given.items() for word in ("--set", f"gateway_entra_{name}={value}")]
        served = Served(provider.url, tmp_path / f"state-{good}", tuple(options)).start()
        try:
            if good:
                assert client(served, issuer.token()).files.list().data == []
            else:
                with pytest.raises(openai.AuthenticationError):
                    client(served, issuer.token()).files.list()
            assert served.client().files.list().data == []
        finally:
            served.end()


@pytest.mark.parametrize("jwks", ["", "http://keys.example/jwks"])
def test_settings_that_make_no_sense_stop_the_start(provider: Any, tmp_path: Path, jwks: str) -> None:
    """Missing ones are named; keys come over https."""
    options = ("--set", f"gateway_entra_issuer={ISSUER}", "--set", f"gateway_entra_audience={AUDIENCE}")
    more = ("--set", f"gateway_entra_jwks={jwks}") if jwks else ()
    with pytest.raises(RuntimeError, match="gateway_entra_jwks"):
        Served(provider.url, tmp_path, (*options, *more)).start()
