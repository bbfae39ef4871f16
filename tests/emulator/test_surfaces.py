"""What the emulator speaks, seen by the official SDK and plain HTTP: files, uploads, lists, ranges, keys, blobs."""

import base64
import hashlib
import io
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import openai
import pytest

from sluicegate.testing import RunningEmulator, local_emulator

AZURE_VERSION = "2024-10-21"


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


# -- uploads in parts --------------------------------------------------------------------------------------------------


def in_parts(client: openai.OpenAI, content: bytes, filename: str = "a.jsonl") -> openai.types.Upload:
    """A whole upload of one part."""
    begun = client.uploads.create(bytes=len(content), filename=filename, mime_type="application/jsonl", purpose="batch")
    part = client.uploads.parts.create(begun.id, data=content)
    return client.uploads.complete(begun.id, part_ids=[part.id])


@pytest.mark.batch_emulator(files_max=2)
def test_a_file_in_parts_counts_against_the_quota_of_files(batch_emulator: RunningEmulator) -> None:
    """As any other; the upload stays, and is completed when there is room."""
    with azure(batch_emulator) as client:
        kept = [upload(client, line("a")), in_parts(client, line("a")).file]
        begun = client.uploads.create(bytes=1, filename="a.jsonl", mime_type="text/jsonl", purpose="batch")
        part = client.uploads.parts.create(begun.id, data=b"x")
        with pytest.raises(openai.BadRequestError, match=r"files without expiry is reached. The maximum is 2\."):
            client.uploads.complete(begun.id, part_ids=[part.id])
        client.files.delete(str(kept[0]))

        assert client.uploads.complete(begun.id, part_ids=[part.id]).status == "completed"


@pytest.mark.batch_emulator(uploads_per_minute=2)
def test_files_in_parts_and_by_url_count_against_the_rate_of_uploads(batch_emulator: RunningEmulator) -> None:
    """One for each file, however many parts it has; a complete that names no parts of the upload makes none."""
    with azure(batch_emulator) as client:
        in_parts(client, line("a"))
        begun = client.uploads.create(bytes=1, filename="a.jsonl", mime_type="text/jsonl", purpose="batch")
        for _ in range(3):
            with pytest.raises(openai.BadRequestError, match="part_ids"):
                client.uploads.complete(begun.id, part_ids=["part_none"])
        body = {"purpose": "batch", "filename": "a.jsonl", "content_url": "http://127.0.0.1:9/a"}
        assert call(f"{batch_emulator.azure_v1_url}/files/import", "POST", body)[0] == 400
        with pytest.raises(openai.RateLimitError, match="Rate limit reached for file uploads"):
            in_parts(client, line("a"))


def test_an_upload_in_parts_is_checked_as_any_other(batch_emulator: RunningEmulator) -> None:
    """OpenAI wants .jsonl; an old version of Azure's knows no batches."""
    body = {"bytes": 1, "filename": "a.csv", "mime_type": "text/csv", "purpose": "batch"}
    status, _, said = call(f"{batch_emulator.openai_url}/uploads", "POST", body)
    assert (status, json.loads(said)["error"]["message"]) == (
        400, "Invalid file format for Batch API. Must be .jsonl"
    )  # fmt: skip
    assert call(f"{batch_emulator.openai_url}/uploads", "POST", body | {"purpose": "assistants"})[0] == 200
    for path in ("uploads", "files/import"):
        more = {"filename": "a.jsonl", "content_url": "http://127.0.0.1:9/a"}
        url = f"{batch_emulator.url}/openai/{path}?api-version=2024-02-01"
        status, _, said = call(url, "POST", body | more)
        assert (status, json.loads(said)["error"]["message"]) == (400, "Invalid value for purpose.")


@pytest.mark.parametrize("spelling", ["expires_after[{}]", "expires_after.{}", "{}"])
def test_a_files_expiry_is_anchored_at_its_creation(batch_emulator: RunningEmulator, spelling: str) -> None:
    """Another anchor is refused, in each spelling; one without seconds too."""
    with azure(batch_emulator) as client:
        for anchor, seconds in (("bogus", "1209600"), ("created_at", None)):
            fields = {spelling.format("anchor"): anchor} | ({spelling.format("seconds"): seconds} if seconds else {})
            with pytest.raises(openai.BadRequestError):
                client.files.create(file=("a.jsonl", line("a")), purpose="batch", extra_body=fields)
        fields = {spelling.format("anchor"): "created_at", spelling.format("seconds"): "1209600"}
        made = client.files.create(file=("a.jsonl", line("a")), purpose="batch", extra_body=fields)

        assert made.expires_at == made.created_at + 1_209_600


@pytest.mark.parametrize("surface", ["openai", "azure"])
def test_a_file_put_together_from_parts_is_an_input_like_any_other(
    batch_emulator: RunningEmulator, surface: str
) -> None:
    """The order is that of ``part_ids``, not of arrival; size and MD5 are checked; the batch runs."""
    content = b"".join(line(f"r{i}") for i in range(10))
    with azure(batch_emulator) if surface == "azure" else plain(batch_emulator) as client:
        begun = client.uploads.create(
            bytes=len(content), filename="big.jsonl", mime_type="application/jsonl", purpose="batch"
        )
        last = client.uploads.parts.create(begun.id, data=content[300:])
        first = client.uploads.parts.create(begun.id, data=content[:300])
        done = client.uploads.complete(begun.id, part_ids=[first.id, last.id], md5=hashlib.md5(content).hexdigest())

        assert (begun.status, done.status) == ("pending", "completed")
        assert begun.expires_at - begun.created_at == 3_600
        assert hasattr(first, "azure_block_id") is (surface == "azure")
        assert done.file is not None
        assert client.files.content(done.file.id).content == content
        create(client, done.file.id)
        batch_emulator.until_idle()
        assert next(iter(client.batches.list())).status == "completed"


def test_an_upload_that_does_not_add_up_is_refused_and_one_may_be_cancelled_or_expire(
    batch_emulator: RunningEmulator,
) -> None:
    """Bytes, MD5, strange parts, cancelled and an hour too late: 400 each time."""
    with plain(batch_emulator) as client:

        def begin() -> tuple[str, str]:
            upload_id = client.uploads.create(bytes=4, filename="x", mime_type="text/jsonl", purpose="batch").id
            return upload_id, client.uploads.parts.create(upload_id, data=b"abcd").id

        upload_id, part = begin()
        client.uploads.parts.create(upload_id, data=b"more")
        for wrong in ({"part_ids": []}, {"part_ids": ["part_none"]}, {"part_ids": [part], "md5": "0" * 32}):
            with pytest.raises(openai.BadRequestError):
                client.uploads.complete(upload_id, **wrong)  # type: ignore[arg-type]
        assert client.uploads.cancel(upload_id).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="cancelled already"):
            client.uploads.parts.create(upload_id, data=b"more")
        upload_id, part = begin()
        batch_emulator.advance("1h")
        with pytest.raises(openai.BadRequestError, match="expired already"):
            client.uploads.complete(upload_id, part_ids=[part])


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_goes_when_its_expiry_has_come_and_openais_inputs_after_thirty_days() -> None:
    """The emulated clock decides; Azure's stay."""
    for dialect, left in (("openai", []), ("azure", ["kept"])):
        with local_emulator(dialect=dialect, clock="hand") as provider, plain(provider) as client:
            after = {"anchor": "created_at", "seconds": 1_209_600}
            for name, more in (("kept", {}), ("short", {"expires_after": after})):
                client.files.create(file=(name, io.BytesIO(line("a"))), purpose="batch", **more)  # type: ignore[arg-type]
            provider.advance("14d")
            assert [file.filename for file in client.files.list()] == ["kept"]
            provider.advance("17d")
            assert [file.filename for file in client.files.list()] == left


@pytest.mark.parametrize(("dialect", "wanted"), [("openai", 30 * 86_400), ("azure", None)])
def test_results_expire_as_the_provider_keeps_them_or_as_the_create_says(dialect: str, wanted: int | None) -> None:
    """OpenAI: 30 days after the end; ``output_expires_after`` counts from there too (F§1.6, F§2.6)."""
    after = {"anchor": "created_at", "seconds": 1_209_600}
    with local_emulator(dialect=dialect, clock="hand") as provider, plain(provider) as client:
        file_id, lives = upload(client, line("a")), []
        for more in ({}, {"output_expires_after": after}):
            batch = client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                **more,  # type: ignore[arg-type]
            )
            provider.until_idle()
            batch = client.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            file = client.files.retrieve(batch.output_file_id)
            lives.append(file.expires_at and file.expires_at - file.created_at)

    assert lives == [wanted, 1_209_600]


@pytest.mark.parametrize("field", ["expires_after[seconds]", "expires_after.seconds", "seconds"])
def test_three_spellings_of_an_expiry_are_understood(batch_emulator: RunningEmulator, field: str) -> None:
    """Azure's documents have three (F§1.9); out of 14 to 30 days is 400."""
    for seconds, status in (("1209600", 201), ("1209599", 400), ("2592001", 400), ("soon", 400)):
        disposition = "--b\r\nContent-Disposition: form-data; name="
        fields = {"purpose": "batch", field: seconds}
        parts = "".join(f'{disposition}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        parts += f'{disposition}"file"; filename="a.jsonl"\r\n\r\n{{}}\r\n--b--\r\n'
        request = urllib.request.Request(
            f"{batch_emulator.url}/openai/files?api-version={AZURE_VERSION}", parts.encode(),
            {"api-key": "any", "content-type": "multipart/form-data; boundary=b"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found, body = answer.status, json.load(answer)
                assert body["expires_at"] - body["created_at"] == 1_209_600
        except urllib.error.HTTPError as error:
            with error:
                found = error.code
        assert found == status


@pytest.mark.batch_emulator(files_max=2)
def test_the_quota_of_files_is_for_those_without_an_expiry(batch_emulator: RunningEmulator) -> None:
    """``quotaExceeded`` word for word (F§5.2); one that expires is still welcome, and a delete makes room."""
    with azure(batch_emulator) as client:
        kept = [upload(client, line("a")) for _ in range(2)]
        with pytest.raises(openai.BadRequestError) as refused:
            upload(client, line("a"))
        assert refused.value.code == "quotaExceeded"
        assert "The quota for files without expiry is reached. The maximum is 2." in refused.value.message
        client.files.create(
            file=("b.jsonl", line("b")), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1_209_600}
        )
        client.files.delete(kept[0])
        assert upload(client, line("c"))


def test_content_comes_in_ranges_and_head_tells_its_size(batch_emulator: RunningEmulator) -> None:
    """From, from–to, the last bytes, behind the end."""
    content = line("a") + line("b")
    with azure(batch_emulator) as client:
        file_id = upload(client, content)
    url, size = f"{batch_emulator.url}/openai/files/{file_id}/content?api-version={AZURE_VERSION}", len(content)
    for asked, status, wanted, shown in (
        ("bytes=5-9", 206, content[5:10], f"bytes 5-9/{size}"),
        ("bytes=100-", 206, content[100:], f"bytes 100-{size - 1}/{size}"),
        ("bytes=-7", 206, content[-7:], f"bytes {size - 7}-{size - 1}/{size}"),
        ("bytes=0-99999", 206, content, f"bytes 0-{size - 1}/{size}"),
        ("bytes=x", 200, content, None),
    ):
        found, headers, body = call(url, range=asked)
        assert (found, body, headers.get("content-range")) == (status, wanted, shown)
    found, headers, _ = call(url, range=f"bytes={size}-")
    assert (found, headers["content-range"]) == (416, f"bytes */{size}")
    found, headers, body = call(url, "HEAD")
    assert (found, headers["content-length"], headers["accept-ranges"], body) == (200, str(size), "bytes", b"")


class _OneFile(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/in.jsonl?sas=1" else 403)
        self.end_headers()
        self.wfile.write(line("from-url"))

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _OneFile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_azure_imports_a_file_from_a_url(batch_emulator: RunningEmulator, web: str) -> None:
    """201 with its place; what cannot be read is ``fileImportFailed``; OpenAI's surface has no such call."""
    url = f"{batch_emulator.url}/openai/files/import?api-version={AZURE_VERSION}"
    body = {"purpose": "batch", "filename": "x.jsonl", "content_url": f"{web}/in.jsonl?sas=1"}
    status, headers, made = call(url, "POST", body)
    file_id = json.loads(made)["id"]

    assert status == 201
    assert headers["location"].endswith(f"/openai/files/{file_id}?api-version={AZURE_VERSION}")
    with azure(batch_emulator) as client:
        assert client.files.content(file_id).content == line("from-url")
    status, _, said = call(url, "POST", body | {"content_url": f"{web}/other"})
    assert (status, json.loads(said)["error"]["code"]) == (400, "fileImportFailed")
    assert call(f"{batch_emulator.openai_url}/files/import", "POST", body)[0] == 404


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


# -- blobs and resources -----------------------------------------------------------------------------------------------


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
