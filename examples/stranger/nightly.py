"""A stranger's program: asks a model many questions overnight by the Batch API. It knows nothing of Sluicegate."""

import io
import json
from time import sleep

import openai

OVER = ("completed", "failed", "expired", "cancelled")


def ask(client: openai.OpenAI, questions: dict[str, str], model: str = "gpt-4.1", tries: int = 5) -> dict[str, str]:
    """The answers by the questions' names; asks again for what failed, and waits while the queue is full.

    Raises:
        RuntimeError: after all tries some have no answer.
    """
    answers: dict[str, str] = {}
    for _ in range(tries):
        left = {name: text for name, text in questions.items() if name not in answers}
        if not left:
            return answers
        batch = run(client, left, model)
        if batch.output_file_id:
            for line in client.files.content(batch.output_file_id).text.splitlines():
                one = json.loads(line)
                answers[one["custom_id"]] = one["response"]["body"]["choices"][0]["message"]["content"]
        if batch.status == "failed":
            sleep(3600)
    raise RuntimeError(f"no answer to {sorted(questions.keys() - answers.keys())}")


def run(client: openai.OpenAI, questions: dict[str, str], model: str) -> openai.types.Batch:
    """One batch from its upload to its end."""
    lines = io.BytesIO()
    for name, text in questions.items():
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.write(json.dumps(line).encode() + b"\n")
    file = client.files.create(file=("questions.jsonl", lines.getvalue()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in OVER:
        sleep(60)
        batch = client.batches.retrieve(batch.id)
    return batch
