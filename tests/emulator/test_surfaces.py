"""What the emulator speaks, seen by the official SDK and plain HTTP: lists, keys, kinds of requests, resources."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from sluicegate.testing import RunningEmulator, local_emulator
from tests.emulator.clients import AZURE_VERSION, azure, call, create, line, plain, upload

# -- lists -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(batch_emulator: RunningEmulator) -> tuple[RunningEmulator, list[str]]:
    """Five batches, a minute apart, newest first; the oldest has ended."""
    made = []
    batch_emulator.post("/_emulator/rate", rate=0)
    with azure(batch_emulator) as client:
        file_id = upload(client, line("a"))
        for i in range(5):
            made.append(create(client, file_id).id)
            if i == 0:
                batch_emulator.until_idle()
            batch_emulator.advance("60s" if i < 4 else 0)
            if i < 4:
                batch_emulator.post("/_emulator/clock", advance=0)
    return batch_emulator, made[::-1]


def ids(text: bytes) -> list[str]:
    return [item["id"] for item in json.loads(text)["data"]]


def test_lists_page_both_ways(five: tuple[RunningEmulator, list[str]]) -> None:
    """``after`` goes on, ``before`` goes back, ``order=asc`` turns the list; ``has_more`` is about the way it goes."""
    provider, made = five
    base = f"{provider.url}/openai/v1/batches"

    def ask(query: str) -> tuple[list[str], bool]:
        _, _, text = call(f"{base}?{query}")
        return ids(text), json.loads(text)["has_more"]

    assert ask("limit=2") == (made[:2], True)
    assert ask(f"limit=2&after={made[1]}") == (made[2:4], True)
    assert ask(f"limit=2&after={made[3]}") == (made[4:], False)
    assert ask(f"limit=2&before={made[4]}") == (made[2:4], True)
    assert ask(f"limit=2&before={made[2]}") == (made[:2], False)
    assert ask("limit=2&order=asc") == ([made[4], made[3]], True)
    for wrong in ("limit=0", "limit=101", "limit=x", "order=up", "after=batch_none", "before=batch_none"):
        assert call(f"{base}?{wrong}")[0] == 400


def test_azure_filters_and_orders(five: tuple[RunningEmulator, list[str]]) -> None:
    """The documented examples (F§1.2), status without regard to case, ``or``; nonsense is 400."""
    provider, made = five
    _, _, whole = call(f"{provider.url}/openai/batches?api-version={AZURE_VERSION}")
    born = {item["id"]: item["created_at"] for item in json.loads(whole)["data"]}

    def ask(**query: str) -> list[str]:
        text = urllib.parse.urlencode({"api-version": AZURE_VERSION} | {f"${k}": v for k, v in query.items()})
        return ids(call(f"{provider.url}/openai/batches?{text}")[2])

    assert ask(orderby="created_at asc") == made[::-1]
    assert ask(filter=f"created_at gt {born[made[2]]}") == made[:2]
    assert made[4] in ask(filter="status eq 'Completed'")
    assert ask(filter=f"created_at gt {born[made[4]]} and status eq 'Failed'") == []
    assert ask(filter=f"created_at le {born[made[4]]} or created_at ge {born[made[0]]}") == [made[0], made[4]]
    query = urllib.parse.urlencode({"api-version": AZURE_VERSION, "$filter": "status like 'x'"})
    assert call(f"{provider.url}/openai/batches?{query}")[0] == 400


# -- who may call ------------------------------------------------------------------------------------------------------


@pytest.mark.batch_emulator(keys=["one", "two"], read_only_keys=["looker"])
def test_several_keys_are_good_and_one_that_may_only_read_gets_403(batch_emulator: RunningEmulator) -> None:
    """In each dialect's envelope."""
    for key in ("one", "two", "looker"):
        with plain(batch_emulator, key) as client, azure(batch_emulator, api_key=key) as other:
            assert [list(client.batches.list()), list(other.batches.list())] == [[], []]
    with plain(batch_emulator, "looker") as client, pytest.raises(openai.PermissionDeniedError) as refused:
        upload(client, line("a"))
    assert refused.value.code == "insufficient_permissions"
    status, _, said = call(f"{batch_emulator.url}/openai/batches?api-version=x", "POST", {}, **{"api-key": "looker"})
    assert (status, set(json.loads(said)["error"])) == (403, {"code", "message"})
    status, _, said = call(f"{batch_emulator.openai_url}/batches", **{"api-key": "three"})
    assert (status, set(json.loads(said)["error"])) == (401, {"message", "type", "param", "code"})


@pytest.mark.batch_emulator(entra_key="secret")
def test_an_entra_token_is_checked_for_signature_audience_and_expiry(batch_emulator: RunningEmulator) -> None:
    """Signed by the test's own key; after its hour the emulated clock ends it."""
    good = batch_emulator.token(expires_in="1h")
    ai = batch_emulator.token(audience="https://ai.azure.com/")
    head, claims, signature = good.split(".")
    bad = {
        "audience": batch_emulator.token(audience="https://graph.microsoft.com"), "form": "no-token",
        "signature": f"{head}.{claims}.{signature[:-4]}AAAA", "claims": f"{head}.{ai.split('.')[1]}.{signature}",
    }  # fmt: skip
    for token in (good, ai):
        with azure(batch_emulator, api_key=None, azure_ad_token=token) as client:
            assert list(client.batches.list()) == []
    for token in bad.values():
        said = pytest.raises(openai.AuthenticationError, match="Access token is missing, invalid, audience")
        with azure(batch_emulator, api_key=None, azure_ad_token=token) as client, said:
            client.batches.list()
    batch_emulator.advance("1h")
    with azure(batch_emulator, api_key=None, azure_ad_token=good) as client, pytest.raises(openai.AuthenticationError):
        client.batches.list()


@pytest.mark.batch_emulator(region="westeurope", calls_per_minute=3)
def test_each_provider_sends_its_own_headers_and_429_says_when_to_come_back(batch_emulator: RunningEmulator) -> None:
    """Request ids, region or version, and what is left of the rate."""
    _, headers, _ = call(f"{batch_emulator.url}/openai/v1/batches")
    assert {"x-request-id", "apim-request-id", "x-ms-region"} <= set(headers)
    _, headers, _ = call(f"{batch_emulator.openai_url}/batches")
    assert {"x-request-id", "openai-version", "openai-processing-ms"} <= set(headers)
    assert headers["x-ratelimit-remaining-requests"] == "1"
    call(f"{batch_emulator.openai_url}/batches")
    status, headers, _ = call(f"{batch_emulator.openai_url}/batches")
    assert (status, headers["retry-after"], headers["retry-after-ms"]) == (429, "60", "60000")
    batch_emulator.advance("60s")
    assert call(f"{batch_emulator.openai_url}/batches")[0] == 200


# -- kinds of requests -------------------------------------------------------------------------------------------------


@pytest.mark.batch_emulator(dialect="openai")
@pytest.mark.parametrize(
    ("url", "body", "look"),
    [
        ("/v1/chat/completions", {}, lambda b: b["choices"][0]["message"]["content"]),
        ("/v1/responses", {"input": "hello"}, lambda b: b["output"][0]["content"][0]["text"]),
        ("/v1/completions", {"prompt": "hello"}, lambda b: b["choices"][0]["text"]),
        (
            "/v1/embeddings",
            {"input": ["a", "b"], "model": "text-embedding-3-small"},
            lambda b: len(b["data"]) == 2 and "2",
        ),
    ],
)
def test_every_kind_of_request_has_its_kind_of_answer_and_true_usage(
    batch_emulator: RunningEmulator, url: str, body: dict[str, Any], look: Any
) -> None:
    """The batch's usage is the sum of its lines'."""
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, line("a", url=url, **body) + line("b", url=url, **body)), url)
        batch_emulator.until_idle()
        batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        bodies = [
            json.loads(t)["response"]["body"] for t in client.files.content(batch.output_file_id).text.splitlines()
        ]

        assert all(look(one) for one in bodies)
        given = sum(one["usage"].get("prompt_tokens", 0) + one["usage"].get("input_tokens", 0) for one in bodies)
        assert batch.usage is not None
        assert (batch.usage.input_tokens, batch.usage.total_tokens) == (
            given,
            sum(b["usage"]["total_tokens"] for b in bodies),
        )
        assert given > 0


@pytest.mark.batch_emulator(dialect="openai")
@pytest.mark.parametrize(
    ("url", "looks"),
    [
        ("/v1/images/generations", lambda b: base64.b64decode(b["data"][0]["b64_json"])[:4] == b"\x89PNG"),
        ("/v1/images/edits", lambda b: base64.b64decode(b["data"][0]["b64_json"])[:4] == b"\x89PNG"),
        ("/v1/videos", lambda b: (b["object"], b["status"]) == ("video", "completed")),
        ("/v1/moderations", lambda b: b["results"][0]["flagged"] is False),
    ],
)
def test_requests_for_no_text_get_none(batch_emulator: RunningEmulator, url: str, looks: Any) -> None:
    """Nor do they use tokens of an answer."""
    with plain(batch_emulator) as client:
        batch = create(client, upload(client, line("a", url=url, prompt="a cat", input="a cat")), url)
        batch_emulator.until_idle()
        batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        body = json.loads(client.files.content(batch.output_file_id).text)["response"]["body"]

        assert looks(body)
        assert "choices" not in body
        assert batch.usage is not None
        assert batch.usage.output_tokens == 0


@pytest.mark.batch_emulator(dialect="openai", enqueued_requests_max=3, validating=10)
def test_embeddings_have_a_limit_of_enqueued_requests_too(batch_emulator: RunningEmulator) -> None:
    """Its text word for word (F§5.3)."""
    with plain(batch_emulator) as client:
        body = {"url": "/v1/embeddings", "input": ["a", "b"], "model": "text-embedding-3-small"}
        file_id = upload(client, line("a", **body))
        made = [create(client, file_id, "/v1/embeddings").id for _ in range(2)]
        batch_emulator.advance(10)
        second = client.batches.retrieve(made[1])

        assert second.status == "failed"
        assert second.errors is not None and second.errors.data is not None
        assert second.errors.data[0].message == (
            "Enqueued request limit reached for text-embedding-3-small in organization org-emulated. Limit: 3 enqueued "
            "requests. Please try again once some in_progress batches have been completed."
        )


# -- resources ---------------------------------------------------------------------------------------------------------


def test_a_file_of_settings_may_name_several_resources(tmp_path: Path) -> None:
    """Each has its own address, deployments and limits; a region that fails fast does."""
    from sluicegate.emulator.config import build
    from sluicegate.emulator.run import in_thread

    path = tmp_path / "emulator.toml"
    path.write_text(
        'clock = "hand"\n'
        '[resources.west]\nregion = "westus"\n[resources.west.deployments]\n"gpt-4.1" = {capacity = 1}\n'
        '[resources.europe]\nregion = "westeurope"\n[resources.europe.deployments]\n"gpt-4.1" = "1K"\n'
    )
    with in_thread(build(path=path, given={})) as url:
        for name, refused in (("west", True), ("europe", False)):
            with azure(RunningEmulator(f"{url}/resources/{name}")) as client:
                file_id = upload(client, line("a", "word " * 2_000))
                if refused:
                    with pytest.raises(openai.BadRequestError, match="configured limit of 1K"):
                        create(client, file_id)
                else:
                    assert create(client, file_id).status == "validating"


@pytest.mark.parametrize("dialect", ["azure", "openai"])
def test_odd_bodies_are_the_callers_fault_and_never_the_servers(dialect: str) -> None:
    """400 or 404 for values of any type in any field, never 500."""
    odd: list[Any] = [None, True, 0, -1, 10**400, "", "x" * 10_000, "http://[", "\x00", [], [[]], {}, {"a": []}]
    fields = {
        "batches": ("input_file_id", "endpoint", "completion_window", "metadata", "input_blob", "output_folder",
                    "output_expires_after"),
        "uploads": ("bytes", "filename", "mime_type", "purpose", "expires_after"),
        "files/import": ("purpose", "filename", "content_url", "expires_after"),
    }  # fmt: skip
    whole: dict[str, dict[str, Any]] = {
        "batches": {"input_file_id": "file-none", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        "uploads": {"bytes": 1, "filename": "a", "mime_type": "text/jsonl", "purpose": "batch"},
        "files/import": {"purpose": "batch", "filename": "a.jsonl", "content_url": "http://127.0.0.1:9/a"},
    }
    with local_emulator(dialect=dialect, clock="hand") as provider:
        for path, names in fields.items():
            for name in names:
                for value in odd:
                    status, _, said = call(f"{provider.url}/openai/v1/{path}", "POST", whole[path] | {name: value})
                    assert status < 500, (path, name, value, said)
        upload_id = json.loads(call(f"{provider.url}/openai/v1/uploads", "POST", whole["uploads"])[2])["id"]
        for value in odd:
            body = {"part_ids": value, "md5": value}
            assert call(f"{provider.url}/openai/v1/uploads/{upload_id}/complete", "POST", body)[0] == 400


def test_an_unknown_path_of_a_resource_is_answered_in_its_dialect(tmp_path: Path) -> None:
    """Under ``/resources/NAME`` too."""
    from sluicegate.emulator.config import Account
    from sluicegate.emulator.run import in_thread

    with in_thread(Account(resources=(("a", Account()), ("b", Account(dialect="openai"))))) as url:
        for name, keys in (("a", {"code", "message"}), ("b", {"message", "type", "param", "code"})):
            status, _, said = call(f"{url}/resources/{name}/openai/nothing?api-version=x")
            assert (status, set(json.loads(said)["error"])) == (404, keys)
