"""langbatch through a whole batch. Arguments: surface, address, key, model, api-version."""

import json
import sys
import tempfile
import time
from pathlib import Path

import openai
from langbatch.openai import OpenAIChatCompletionBatch

surface, url, key, model, api_version = sys.argv[1:6]
if surface == "azure":
    client = openai.AzureOpenAI(azure_endpoint=url, api_key=key, api_version=api_version)
else:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
requests = [
    {
        "custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": model, "messages": [{"role": "user", "content": "hello"}]},
    }
    for number in range(3)
]  # fmt: skip
path = Path(tempfile.mkdtemp()) / "in.jsonl"
path.write_text("".join(json.dumps(one) + "\n" for one in requests))
batch = OpenAIChatCompletionBatch(str(path), client=client)
batch.start()
for _ in range(600):
    if batch.get_status() in ("completed", "failed", "expired", "cancelled"):
        break
    time.sleep(0.05)
good, bad = batch.get_results()
listed = [one.id for one in client.batches.list(limit=5)]
print(
    json.dumps(
        {
            "status": batch.get_status(), "ids": sorted(one["custom_id"] for one in good), "failed": len(bad or []),
            "listed": batch.platform_batch_id in listed,
        }
    )
)  # fmt: skip
