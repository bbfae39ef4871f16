"""The official Python SDK at the gateway: only ``base_url`` is not the provider's. Arguments: GATEWAY KEY FILE."""

import sys
import time

from openai import OpenAI

gateway, key, path = sys.argv[1:4]
client = OpenAI(base_url=f"{gateway}/v1", api_key=key)
with open(path, "rb") as requests:
    file = client.files.create(file=requests, purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
    batch = client.batches.retrieve(batch.id)
print(batch.status)
for error in batch.errors.data if batch.errors else []:
    print(f"line {error.line}: {error.message}", file=sys.stderr)
for result in filter(None, (batch.output_file_id, batch.error_file_id)):
    print(client.files.content(result).text)
