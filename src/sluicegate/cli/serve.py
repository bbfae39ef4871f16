"""``sluicegate serve``: the gateway."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

from sluicegate.cli.options import Paced, load

PLACE = Group.create_ordered("Where it listens")


def serve(
    *,
    host: Annotated[str, Parameter(group=PLACE, help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(group=PLACE, help="Port to listen on; 0 takes a free one.")] = 8000,
    common: Paced | None = None,
) -> int:
    """Serve the Batch API that queues instead of refusing."""
    from sluicegate.web.serve import serve as keep_up

    keep_up(load(common or Paced()), host=host, port=port, ready=_say_ready)
    return 0


def _say_ready(url: str, key: str | None) -> None:
    if key is not None:
        print(  # noqa: T201
            f"A first key, of the tenant 'default'. It is shown only now:\n  {key}\nTry it:\n"
            "  from openai import OpenAI\n"
            f'  client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
            '  file = client.files.create(file=open("requests.jsonl", "rb"), purpose="batch")\n'
            "  print(client.batches.create(input_file_id=file.id, endpoint="
            '"/v1/chat/completions", completion_window="24h"))'
        )
    print(f"sluicegate gateway ready at {url}", flush=True)  # noqa: T201  (the one line that programs wait for)
