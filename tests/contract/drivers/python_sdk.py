"""Every call of the Batch API with whatever version of the official Python SDK runs this; prints what came as JSON.

Arguments: surface (openai, azure, azure-v1), address, key, model, api-version. Not a test: ``test_clients.py`` runs it in
environments of their own and compares. A version that has no Uploads API, for instance, says so under ``lacks``.
"""

import asyncio
import io
import json
import sys
import time

import openai

surface, url, key, model, api_version = sys.argv[1:6]
URL = "/chat/completions" if surface == "azure" else "/v1/chat/completions"


def make_client(cls_plain, cls_azure, **more):
    if surface == "azure":
        return cls_azure(azure_endpoint=url, api_key=key, api_version=api_version, **more)
    return cls_plain(base_url=url + ("/openai/v1/" if surface == "azure-v1" else "/v1"), api_key=key, **more)


def line(custom_id):
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    whole = {"custom_id": custom_id, "method": "POST", "url": URL, "body": body}
    return (json.dumps(whole) + "\n").encode()


def streamed(client, file_id):
    with client.files.with_streaming_response.content(file_id) as answer:
        return b"".join(answer.iter_bytes(16))


def refused(call):
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code]
    return None


def main():
    client = make_client(openai.OpenAI, openai.AzureOpenAI, max_retries=0)
    content = line("a b/ü") + line("2")
    seen, lacks = {}, []
    uploaded = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    seen["uploaded"] = [uploaded.object, uploaded.bytes == len(content), uploaded.filename, uploaded.purpose]
    if hasattr(client.files, "wait_for_processing"):
        seen["processed"] = client.files.wait_for_processing(uploaded.id, poll_interval=0.05).status
    else:
        lacks.append("wait_for_processing")
    seen["retrieved"] = client.files.retrieve(uploaded.id).id == uploaded.id
    seen["listed"] = uploaded.id in [one.id for one in client.files.list()]
    seen["same_content"] = client.files.content(uploaded.id).read() == content
    seen["streamed_content"] = streamed(client, uploaded.id) == content
    if surface == "openai":
        later = client.files.create(file=("later.jsonl", io.BytesIO(content)), purpose="batch")
        oldest = [one.id for one in client.files.list(extra_query={"order": "asc"})]
        seen["ascending"] = oldest.index(uploaded.id) < oldest.index(later.id)
    stranger = client.with_options(api_key="wrong-key")
    seen["wrong_key"] = refused(lambda: stranger.files.retrieve(uploaded.id))
    seen["unknown_file"] = refused(lambda: client.files.retrieve("file-none"))
    if hasattr(client, "batches"):
        batches(client, uploaded.id, seen, lacks)
        seen["async"] = asyncio.run(asynchronously(content))
    else:
        lacks.append("batches")
    if hasattr(client, "uploads"):
        uploads(client, content, seen)
    else:
        lacks.append("uploads")
    seen["deleted"] = client.files.delete(uploaded.id).deleted
    seen["gone"] = refused(lambda: client.files.retrieve(uploaded.id))
    print(json.dumps({"version": openai.__version__, "lacks": lacks, "seen": seen}))


def batches(client, file_id, seen, lacks):
    made = client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"who": "driver"}
    )
    seen["created"] = [made.object, made.status, made.completion_window, made.metadata]
    batch = made
    for _ in range(600):
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            break
        time.sleep(0.05)
        batch = client.batches.retrieve(made.id)
    counts = batch.request_counts
    seen["ended"] = [batch.status, counts.total, counts.completed, counts.failed]
    text = client.files.content(batch.output_file_id).text
    text = text() if callable(text) else text
    seen["answered"] = sorted(json.loads(one)["custom_id"] for one in text.splitlines())
    newer = client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    if hasattr(client.batches, "list"):
        listed = [one.id for one in client.batches.list(limit=1)]
        seen["pages"] = [listed.index(newer.id) < listed.index(made.id), len(set(listed)) == len(listed)]
    else:
        lacks.append("list")
    many = {f"k{i}": "v" for i in range(17)}
    seen["bad_request"] = refused(
        lambda: client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata=many
        )
    )
    seen["unknown_batch"] = refused(lambda: client.batches.retrieve("batch_none"))
    seen["cancel_ended"] = refused(lambda: client.batches.cancel(made.id))
    seen["raw"] = client.batches.with_raw_response.retrieve(made.id).headers["content-type"]


async def asynchronously(content):
    """The asynchronous half: a whole batch, its output streamed, a call that is refused."""
    async with make_client(openai.AsyncOpenAI, openai.AsyncAzureOpenAI, max_retries=0) as client:
        uploaded = await client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
        await client.files.wait_for_processing(uploaded.id, poll_interval=0.05)
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        for _ in range(600):
            if batch.status in ("completed", "failed", "expired", "cancelled"):
                break
            await asyncio.sleep(0.05)
            batch = await client.batches.retrieve(batch.id)
        async with client.files.with_streaming_response.content(batch.output_file_id) as answer:
            output = b"".join([chunk async for chunk in answer.iter_bytes(16)])
        listed = [one.id async for one in client.files.list()]
        try:
            await client.batches.cancel(batch.id)
        except openai.ConflictError as error:
            refusal = error.status_code
        deleted = await client.files.delete(uploaded.id)
        return [batch.status, len(output.splitlines()), uploaded.id in listed, refusal, deleted.deleted]


def uploads(client, content, seen):
    upload = client.uploads.create(
        filename="parts.jsonl", purpose="batch", bytes=len(content), mime_type="application/jsonl"
    )
    half = len(content) // 2
    parts = [
        client.uploads.parts.create(upload_id=upload.id, data=piece).id for piece in (content[:half], content[half:])
    ]
    done = client.uploads.complete(upload_id=upload.id, part_ids=parts)
    seen["upload"] = [upload.status, done.status, client.files.content(done.file.id).read() == content]
    other = client.uploads.create(filename="no.jsonl", purpose="batch", bytes=1, mime_type="application/jsonl")
    seen["upload_cancelled"] = client.uploads.cancel(other.id).status


main()
