"""``sluicegate serve``: the gateway."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from sluicegate.cli.options import Paced, load

FIRST_KEY: Final = "first-key"
"""The file of the data folder that the first key is written to where standard output is no terminal."""

PLACE = Group.create_ordered("Where it listens")


def serve(
    *,
    host: Annotated[str, Parameter(group=PLACE, help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(group=PLACE, help="Port to listen on; 0 takes a free one.")] = 8000,
    common: Paced | None = None,
) -> int:
    """Serve the Batch API that queues instead of refusing."""
    from sluicegate.web.serve import serve as keep_up

    settings = load(common or Paced())
    keep_up(settings, host=host, port=port, ready=partial(_say_ready, settings.state))
    print("stopped; what the provider holds goes on there, and the next start on this data folder with it")  # noqa: T201  (for persons)
    return 0


def _say_ready(state: Path, url: str, key: str | None) -> None:
    if key is not None and not sys.stdout.isatty():
        # Standard output is a log then, which others read and keep.
        path = state / FIRST_KEY
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{key}\n")
        print(f"A first key, of the tenant 'default', is in {path}, for this user's eyes only.")  # noqa: T201
    elif key is not None:
        print(  # noqa: T201
            f"A first key, of the tenant 'default'. It is shown only now:\n  {key}\nTry it:\n"
            "  from openai import OpenAI\n"
            f'  client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
            '  file = client.files.create(file=open("requests.jsonl", "rb"), purpose="batch")\n'
            "  print(client.batches.create(input_file_id=file.id, endpoint="
            '"/v1/chat/completions", completion_window="24h"))'
        )
    print(f"sluicegate gateway ready at {url}", flush=True)  # noqa: T201  (the one line that programs wait for)
    print(f"its API, with examples: {url}/docs", flush=True)  # noqa: T201  (for persons)
