"""Files of the emulator: uploads whole, in parts and by URL, expiries, quotas, ranges."""

import hashlib
import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import openai
import pytest

from sluicegate.testing import RunningEmulator, local_emulator
from tests.emulator.clients import AZURE_VERSION, azure, call, create, line, plain, serving, upload

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
    with serving(_OneFile) as url:
        yield url


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
