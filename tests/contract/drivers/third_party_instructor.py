"""instructor's batch processor through a whole batch. Arguments: surface, address, key, model, api-version."""

import contextlib
import json
import os
import sys
import time

from instructor.batch import BatchProcessor
from pydantic import BaseModel

surface, url, key, model, api_version = sys.argv[1:6]
os.environ["OPENAI_BASE_URL"] = f"{url}/v1" if surface == "openai" else f"{url}/openai/v1"
os.environ["OPENAI_API_KEY"] = key


class Answer(BaseModel):
    """What instructor asks the model for."""

    text: str


processor = BatchProcessor(f"openai/{model}", Answer)
# It talks on standard output.
with contextlib.redirect_stdout(sys.stderr):
    buffer = processor.create_batch_from_messages([[{"role": "user", "content": f"number {i}"}] for i in range(3)])
    batch_id = processor.submit_batch(buffer)
    status = processor.get_batch_status(batch_id)
    for _ in range(600):
        if status["status"] in ("completed", "failed", "expired", "cancelled"):
            break
        time.sleep(0.05)
        status = processor.get_batch_status(batch_id)
    # The emulator's text is no JSON of the model's schema: each result is there, by its id, as one that does not parse.
    results = processor.retrieve_results(batch_id)
    # Its own, which is the newest: it cannot read a batch without metadata, which the API gives as null.
    listed = [one.id for one in processor.list_batches(limit=1)]
print(
    json.dumps(
        {
            "status": status["status"], "ids": sorted(one.custom_id for one in results), "listed": batch_id in listed,
            "counts": status["request_counts"],
        }
    )
)  # fmt: skip
