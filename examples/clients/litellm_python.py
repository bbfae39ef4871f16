"""LiteLLM at the gateway: only ``api_base`` is not the provider's. Arguments: GATEWAY KEY FILE."""

import sys
import time

import litellm

gateway, key, path = sys.argv[1:4]
where = {"custom_llm_provider": "openai", "api_base": f"{gateway}/v1", "api_key": key}
with open(path, "rb") as requests:
    file = litellm.create_file(file=requests, purpose="batch", **where)
batch = litellm.create_batch(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **where
)  # fmt: skip
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
    batch = litellm.retrieve_batch(batch_id=batch.id, **where)
print(batch.status)
for error in batch.errors.data if batch.errors else []:
    print(f"line {error.line}: {error.message}", file=sys.stderr)
for result in filter(None, (batch.output_file_id, batch.error_file_id)):
    print(litellm.file_content(file_id=result, **where).content.decode())
