"""The gateway in a simulated world: its lives one after the other, and clients that only know its HTTP surface.

Clients behave as SDKs do: what is not answered they send again, saying so in ``x-stainless-retry-count``. Answers get lost
because the gateway dies, and because the plan says so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import httpx2

from sluicegate.core.rules import CheckRules
from sluicegate.core.tenancy import ClientBatchRow, FileRow, UploadPartRow
from sluicegate.errors import StateUnusable
from sluicegate.ports import Tx
from sluicegate.service import keys
from sluicegate.service.desk import DESK, Desk, DeskPolicy
from sluicegate.service.retention import LITTERED
from sluicegate.settings import Settings
from sluicegate.web.app import make_app
from sluicegate.web.auth import Gatekeeper
from sluicegate.web.metrics import Metrics
from sluicegate.web.state import Gateway
from sluicegate.web.together import Together
from sluicegate.web.watch import Watch
from tests.simulation import judge
from tests.simulation.plan import Client
from tests.simulation.ports import Fate
from tests.simulation.wire import Transport
from tests.simulation.world import Died, SeededIds, VirtualClock

if TYPE_CHECKING:
    from tests.simulation.play import _Play

KEEP_S: Final = 300.0
"""How long ended batches are kept: clients fetch their results sooner."""

LITTER_S: Final = KEEP_S / 2
"""How long a gateway that does not die in between looks at a blob that no row names until it drops it."""

SWEPT_S: Final = 60.0
"""Within which the gateway does what is due."""

FAMILIES: Final = ("/v1", "/openai/v1", "/openai")
POLL_S: Final = 5.0
AGAIN_S: Final = 0.5
EARLY: Final = {"cancel": frozenset({"batch_cancelled"}), "expire": frozenset({"batch_expired"})}
"""Error codes of requests that were not sent as often as they may be, by what the client does."""

ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class Gatehouse:
    """A gateway that dies and comes back, and its clients."""

    def __init__(self, play: _Play) -> None:
        self._play, self._plan = play, play.plan
        self._app: Any = None
        self._fate: Fate | None = None
        self._closing = asyncio.Event()
        self._keys: list[str] = []
        self._made: list[str] = []
        self.took_s = 0.0
        self._settings = Settings(
            azure_endpoint="http://emulated", limit=play.told(play.plan.limit), gateway_metrics="off"
        )  # fmt: skip

    async def serve_all(self) -> None:
        """Return when every client has its answers and the gateway has stopped."""
        for tenant in range(3):
            made = await keys.create(
                self._play.store, SeededIds((self._plan.seed, tenant)), VirtualClock(), tenant=f"t{tenant}"
            )
            assert made is not None
            self._keys.append(made["key"])
        lives = asyncio.ensure_future(self._lives())
        clients = [self._client(number, client) for number, client in enumerate(self._plan.clients)]
        both = asyncio.ensure_future(asyncio.gather(*clients))
        await asyncio.wait({lives, both}, return_when=asyncio.FIRST_COMPLETED)
        if lives.done():
            lives.result()
        await both
        loop = asyncio.get_running_loop()
        self.took_s = loop.time() - self._play.calm_at()
        self._compare_rows()
        await asyncio.sleep(KEEP_S + SWEPT_S)
        while (early := self._play.trace.trouble_at + LITTER_S + SWEPT_S - loop.time()) > 0:  # noqa: ASYNC110 - deaths are no event
            await asyncio.sleep(early)  # it died meanwhile, and looks anew
        self._closing.set()
        await lives

    # -- the gateway ---------------------------------------------------------------------------------------------------

    async def _lives(self) -> None:
        deaths = self._plan.gateway or ()
        for attempt in itertools.count():
            at, how = deaths[attempt] if attempt < len(deaths) else (0, "never")
            fate = Fate(f"g.{attempt}", self._play.trace, at, how)
            try:
                await self._life(fate, attempt)
            except Died:
                self._play.trace.add(f"{fate.name} is gone")
            except (OSError, StateUnusable) as error:
                self._play.excuse(fate, error)
            finally:
                fate.dead = True
                self._app = None
            if self._closing.is_set():
                return
            await asyncio.sleep(0.7)

    async def _life(self, fate: Fate, attempt: int) -> None:
        desks: list[Desk] = []
        ctx = self._play.context(
            fate, (self._plan.seed, "gateway", attempt), lambda event: [desk.heard(event) for desk in desks]
        )
        assert ctx.lock.acquire(DESK), "only one gateway lives"
        rules = CheckRules(dialect=ctx.backend.dialect, limit=self._play.told(self._plan.limit))
        desk = Desk(ctx, rules, DeskPolicy(active_max=self._plan.active, keep_s=KEEP_S, litter_s=LITTER_S))
        desks.append(desk)
        await desk.begin()
        self._fate = fate
        gateway = Gateway(
            ctx=ctx, desk=desk, settings=self._settings, gatekeeper=Gatekeeper(ctx.store), metrics=Metrics(),
            together=Together(ctx.store), watch=Watch(ctx, desk),
        )  # fmt: skip
        self._app = make_app(gateway)
        turning = asyncio.ensure_future(desk.run())
        events = [asyncio.ensure_future(one.wait()) for one in (fate.gone, fate.stop, self._closing)]
        await asyncio.wait({turning, *events}, return_when=asyncio.FIRST_COMPLETED)
        self._app = None
        if not fate.dead and not turning.done():
            desk.stop()
            await asyncio.wait({turning, events[0]}, return_when=asyncio.FIRST_COMPLETED)
        lanes = (desk._drives, desk._checks, desk._joins, desk._sweeps)
        for task in (turning, *events, *(task for lane in lanes for task in lane.values())):
            task.cancel()
        if not fate.dead and not self._closing.is_set() and not fate.stop.is_set():
            self._play.fail("the gateway's loop ended by itself")

    # -- clients -------------------------------------------------------------------------------------------------------

    async def _client(self, number: int, client: Client) -> None:
        await asyncio.sleep(client.at)
        caller = _Caller(self, number, client)
        lines = _lines([f"c{number}-{i}" for i in range(client.requests)])
        sent = judge.answers_to(lines)
        file = await caller.upload(b"\n".join(lines))
        made = await caller.call(
            "POST", "/batches", json={"input_file_id": file, "endpoint": "/v1/chat/completions",
                                      "completion_window": "24h"},
        )  # fmt: skip
        id_ = made["id"]
        self._made.append(id_)
        if client.ending == "delete":
            await caller.call("DELETE", f"/files/{file}", also=(404,))
        if client.ending == "expire":  # as if it had been created almost a day ago
            due_at = VirtualClock().now() + 20.0
            await self._play.store.transact(lambda tx: tx.amend(ClientBatchRow, id_, due_at=due_at))
        if client.ending == "cancel":
            await asyncio.sleep(caller.dice.choice((0.0, 2.0, 20.0)))
            await caller.call("POST", f"/batches/{id_}/cancel", also=(409,))
        await self._strangers(number, id_)
        batch = await caller.call("GET", f"/batches/{id_}")
        while batch["status"] not in ENDED:
            await asyncio.sleep(POLL_S)
            batch = await caller.call("GET", f"/batches/{id_}")
        await self._compare(caller, batch, sent)

    async def _strangers(self, number: int, id_: str) -> None:
        """Another tenant's key finds nothing."""
        other = _Caller(
            self, number, Client(tenant=(self._plan.clients[number].tenant + 1) % 3, requests=0, at=0, ending="")
        )
        for method, path in (("GET", ""), ("GET", "/parts"), ("POST", "/cancel")):
            answer = await other.call(method, f"/batches/{id_}{path}", also=(404,))
            if "error" not in answer:
                self._play.fail("a tenant sees another's batch")

    async def _compare(self, caller: _Caller, batch: dict[str, Any], sent: dict[str, str]) -> None:
        play, status = self._play, batch["status"]
        play.trace.add(f"{batch['id']} is {status}: {batch['request_counts']}")
        usual = {"cancel": {"cancelled", "completed"}, "expire": {"expired", "completed"}}
        if status not in usual.get(caller.client.ending, {"completed"}):
            play.fail(f"a batch ended as {status}: {batch['errors']}")
        found = [
            (await caller.text(f"/files/{batch[name]}/content") if batch[name] else "").splitlines()
            for name in ("output_file_id", "error_file_id")
        ]
        counts = batch["request_counts"]
        if not found[0] and not found[1] and status != "completed" and counts["total"] == 0:
            return  # it ended before it was checked
        wrong = judge.misjudged(
            out=found[0], err=found[1], wanted=sent, past=play.past(), attempts=play.policy.attempts,
            early=EARLY.get(caller.client.ending, frozenset()) | play.early,
        )  # fmt: skip
        if wrong:
            play.fail(f"a client's batch: {wrong}")
        if (counts["total"], counts["completed"], counts["failed"]) != (len(sent), len(found[0]), len(found[1])):
            play.fail(f"request_counts are {counts}, the files have {len(found[0])} and {len(found[1])}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def _rows(self, read: Any) -> Any:
        return self._play.store._transact(read)

    def _compare_rows(self) -> None:
        def read(tx: Tx) -> tuple[list[str], list[str]]:
            tenants = [run.id for run in tx.runs(unfinished=True) if run.tenant is not None]
            return [batch.id for batch in tx.find(ClientBatchRow)], tenants

        batches, unfinished = self._rows(read)
        if not set(batches) <= set(self._made):
            self._play.fail("a create became two batches")
        if unfinished:
            self._play.fail("a run of a batch that has ended is unfinished")

    def at_the_end(self) -> None:
        """What is not to be kept is gone: rows, runs, results, parts of uploads."""

        def read(tx: Tx) -> list[object]:
            kept: list[object] = [*tx.find(ClientBatchRow), *tx.find(UploadPartRow), *tx.find(FileRow)]
            return kept + [run for run in tx.runs() if run.tenant is not None]

        entries = self._play.store._connection.execute("SELECT count(*) FROM ledger").fetchone()[0]
        if entries and not self._plan.inputs:
            self._play.fail(f"{entries} entries of the ledger outlived their parts")
        if kept := self._rows(read):
            self._play.fail(f"{len(kept)} rows outlived their time")
        state = self._play.folder / "state"
        for folder in LITTERED:
            left = [path.name for path in (state / folder).iterdir() if not path.name.endswith(".tmp")]
            if left and not self._plan.inputs:
                self._play.fail(f"{len(left)} blobs in {folder} outlived their time: {sorted(left)[0]}")


def _lines(ids: list[str]) -> list[bytes]:
    """A batch's requests."""
    lines = []
    for i, id_ in enumerate(ids):
        content = "word " * (5 + (i * 37 + len(ids) * 11) % 90)
        body = {"model": "m0-batch", "messages": [{"role": "user", "content": f"{id_} {content}"}]}
        line = {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line).encode())
    return lines


class _Caller:
    """One client's connection."""

    def __init__(self, house: Gatehouse, number: int, client: Client) -> None:
        self._house, self.client = house, client
        self.dice = random.Random(f"client-{house._plan.seed}-{number}-{client.tenant}")
        self._family = FAMILIES[number % 3]
        self._headers = {"authorization": f"Bearer {house._keys[client.tenant]}"}

    async def upload(self, content: bytes) -> str:
        """Upload the batch's requests; the file's id."""
        if self.client.ending != "parts":
            files = {"file": ("in.jsonl", content)}
            return str((await self.call("POST", "/files", data={"purpose": "batch"}, files=files))["id"])
        wanted = {"bytes": len(content), "filename": "in.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}
        upload = await self.call("POST", "/uploads", json=wanted)
        half = len(content) // 2
        parts = []
        for piece in (content[:half], content[half:]):
            parts.append(
                (await self.call("POST", f"/uploads/{upload['id']}/parts", files={"data": ("x", piece)}))["id"]
            )
        done = await self.call("POST", f"/uploads/{upload['id']}/complete", json={"part_ids": parts})
        return str(done["file"]["id"])

    async def call(self, method: str, path: str, *, also: tuple[int, ...] = (), **content: Any) -> dict[str, Any]:
        """A call, repeated until it is answered; statuses other than 2xx and ``also`` are broken promises."""
        answer = await self._answered(method, path, also, **content)
        found: dict[str, Any] = answer.json()
        return found

    async def text(self, path: str) -> str:
        """A file's content."""
        return (await self._answered("GET", path, ())).text

    async def _answered(self, method: str, path: str, also: tuple[int, ...], **content: Any) -> httpx2.Response:
        for attempt in itertools.count():
            if attempt:
                await asyncio.sleep(min(8.0, AGAIN_S * 2**attempt))
            try:
                answer = await self._once(method, path, attempt, **content)
            except httpx2.HTTPError:
                continue
            if answer.status_code // 100 == 2 or answer.status_code in also:
                return answer
            if answer.status_code not in (503, 507):
                self._house._play.fail(f"{method} {path.partition('_')[0]} gave {answer.status_code}: {answer.text}")
        raise AssertionError("endless")

    async def _once(self, method: str, path: str, attempt: int, **content: Any) -> httpx2.Response:
        house = self._house
        lost = self.dice.random() < house._plan.unsure and self.dice.choice(("there", "back"))
        app, fate = house._app, house._fate
        house._play.trace.add(f"  client {self._family} {method} {path.partition('_')[0]} #{attempt} {lost or ''}")
        if app is None or fate is None or lost == "there":
            raise httpx2.ConnectError("nobody answers")
        query = "?api-version=2024-10-21" if self._family == "/openai" else ""
        headers = self._headers | {"x-stainless-retry-count": str(attempt)}
        async with httpx2.AsyncClient(transport=Transport(app), base_url="http://gateway") as client:
            with mock.patch("os.urandom", self.dice.randbytes):  # the form's boundary
                request = client.build_request(method, self._family + path + query, headers=headers, **content)
            sent = asyncio.ensure_future(client.send(request))
            gone = asyncio.ensure_future(fate.gone.wait())
            await asyncio.wait({sent, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if fate.dead or lost == "back":
                if lost == "back" and not fate.dead:
                    await sent
                sent.cancel()
                sent.add_done_callback(lambda task: task.cancelled() or task.exception())
                raise httpx2.ReadError("the connection was closed")
            return sent.result()
