"""``AzureOpenAI`` at the gateway: only ``azure_endpoint`` is not Azure's. Arguments: GATEWAY KEY FILE."""

import sys
import time

from openai import AzureOpenAI

gateway, key, path = sys.argv[1:4]
client = AzureOpenAI(azure_endpoint=gateway, api_key=key, api_version="2024-10-21")
with open(path, "rb") as requests:
    file = client.files.create(file=requests, purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/chat/completions", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
    batch = client.batches.retrieve(batch.id)
print(batch.status)
for error in batch.errors.data if batch.errors else []:
    print(f"line {error.line}: {error.message}", file=sys.stderr)
for result in filter(None, (batch.output_file_id, batch.error_file_id)):
    print(client.files.content(result).text)
