"""LiteLLM's SDK through a whole batch. Arguments: surface, address, key, model, api-version."""

import io
import json
import sys
import time

import litellm

surface, url, key, model, api_version = sys.argv[1:6]
if surface == "azure":
    where = {"custom_llm_provider": "azure", "api_base": url, "api_key": key, "api_version": api_version}
else:
    where = {"custom_llm_provider": "openai", "api_base": f"{url}/v1", "api_key": key}
requests = [
    {
        "custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": model, "messages": [{"role": "user", "content": "hello"}]},
    }
    for number in range(3)
]  # fmt: skip
content = "".join(json.dumps(one) + "\n" for one in requests).encode()
file = litellm.create_file(file=("in.jsonl", io.BytesIO(content)), purpose="batch", **where)
batch = litellm.create_batch(
    completion_window="24h",
    endpoint="/v1/chat/completions",
    input_file_id=file.id,
    metadata={"who": "litellm"},
    **where,
)
for _ in range(600):
    if batch.status in ("completed", "failed", "expired", "cancelled"):
        break
    time.sleep(0.05)
    batch = litellm.retrieve_batch(batch_id=batch.id, **where)
text = litellm.file_content(file_id=batch.output_file_id, **where).content.decode()
listed = litellm.list_batches(limit=5, **where)
print(
    json.dumps(
        {
            "status": batch.status,
            "ids": sorted(json.loads(line)["custom_id"] for line in text.splitlines()),
            "listed": batch.id in [one.id for one in listed.data],
        }
    )
)
