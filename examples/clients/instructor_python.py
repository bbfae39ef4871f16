"""instructor's batch processor at the gateway: it takes the SDK's own variables. Arguments: GATEWAY KEY MODEL."""

import os
import sys
import time

from instructor.batch import BatchProcessor
from pydantic import BaseModel

gateway, key, model = sys.argv[1:4]
os.environ |= {"OPENAI_BASE_URL": f"{gateway}/v1", "OPENAI_API_KEY": key}


class City(BaseModel):
    """What is asked for."""

    name: str


processor = BatchProcessor(f"openai/{model}", City)
questions = [[{"role": "user", "content": f"the capital of country {i}"}] for i in range(3)]
batch_id = processor.submit_batch(processor.create_batch_from_messages(questions))
while (status := processor.get_batch_status(batch_id)["status"]) not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
print(status)
for result in processor.retrieve_results(batch_id):
    print(result.custom_id)
