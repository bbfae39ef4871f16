"""``sluicegate keys``: who may use the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from sluicegate.cli import output
from sluicegate.cli.options import Where, load
from sluicegate.cli.words import date
from sluicegate.errors import UsageError

KEYS = Group("Keys", sort_key=1)


def _epilogue(*examples: str) -> str:
    lines = "".join(f"  sluicegate keys {example}\n" for example in examples)
    return f"Examples:\n{lines}\nExit codes:\n  0  done\n  2  usage or settings"


app = App(name="keys", help_epilogue=_epilogue("create --tenant search", "list"))
Id = Annotated[str, Parameter(name="ID", help="The key's id, not the key.")]


@app.command(help_epilogue=_epilogue("create --tenant search", "create --tenant search --weight 3 --expires 90d"))
def create(
    *,
    tenant: Annotated[str, Parameter(group=KEYS, metavar="NAME", help="Whose key it is; a new tenant is made.")],
    role: Annotated[
        Literal["user", "observer", "admin"],
        Parameter(group=KEYS, help="observer may only look; admin sees all tenants' files and batches."),
    ] = "user",
    expires: Annotated[
        str | None, Parameter(group=KEYS, metavar="TIME", help="Refuse it after this, as 90d. [default: never]")
    ] = None,
    weight: Annotated[
        float | None, Parameter(group=KEYS, help="The tenant's share of the limit relative to others. [default: 1]")
    ] = None,
    common: Where | None = None,
) -> int:
    """Make a key. It is shown once."""
    from sluicegate.core.tenancy import Role
    from sluicegate.service import keys

    common = common or Where()
    seconds = _seconds("--expires", expires) if expires else None
    made = _on(common, lambda store, ids, clock: keys.create(
        store, ids, clock, tenant=tenant, role=Role(role), expires_s=seconds, weight=weight))  # fmt: skip
    _show(common, made)
    return 0


@app.command(name="list", help_epilogue=_epilogue("list", "list --json"))
def list_(*, common: Where | None = None) -> int:
    """List all keys, without their secrets."""
    from sluicegate.service import keys

    common = common or Where()
    rows = _on(common, lambda store, ids, clock: keys.listed(store))
    if common.json:
        output.print_json(rows)
        return 0
    lines = [
        f"{row['id']}  {row['tenant']}  weight {row['weight']:g}  {row['role']}  made {date(row['created_at'])}"
        + (f"  expires {date(row['expires_at'])}" if row["expires_at"] else "")
        + (f"  revoked {date(row['revoked_at'])}" if row["revoked_at"] else "")
        for row in rows
    ]
    output.print_lines(lines or [f"no keys yet in the data folder {load(common).state}"])
    return 0


@app.command(help_epilogue=_epilogue("weight search 3"))
def weight(
    tenant: Annotated[str, Parameter(name="TENANT", help="The tenant's name.")],
    share: Annotated[float, Parameter(name="WEIGHT", help="Its share of the limit relative to others.")],
    /,
    *,
    common: Where | None = None,
) -> int:
    """Change a tenant's weight; a running gateway goes by it from the next part on."""
    from sluicegate.service import keys

    common = common or Where()
    done = _on(common, lambda store, ids, clock: keys.weigh(store, tenant=tenant, weight=share))
    if common.json:
        output.print_json(done)
    else:
        output.print_lines([f"{tenant} has the weight {share:g}"])
    return 0


@app.command(help_epilogue=_epilogue("revoke key_4k2m0q7xw9ab"))
def revoke(id_: Id, /, *, common: Where | None = None) -> int:
    """Refuse a key from now on; a running gateway follows within a second."""
    from sluicegate.service import keys

    common = common or Where()
    done = _on(common, lambda store, ids, clock: keys.revoke(store, clock, id_))
    if common.json:
        output.print_json(done)
    else:
        output.print_lines([f"{id_} is revoked"])
    return 0


@app.command(help_epilogue=_epilogue("rotate key_4k2m0q7xw9ab --grace 1h"))
def rotate(
    id_: Id, /, *,
    grace: Annotated[str, Parameter(group=KEYS, metavar="TIME", help="How long the old key is still accepted.")] = "1d",
    common: Where | None = None,
) -> int:  # fmt: skip
    """Make a new key for the same tenant and role, and let the old one expire."""
    from sluicegate.service import keys

    common = common or Where()
    grace_s = _seconds("--grace", grace)
    _show(common, _on(common, lambda store, ids, clock: keys.rotate(store, ids, clock, id_, grace_s=grace_s)))
    return 0


def _show(common: Where, made: Any) -> None:
    if common.json:
        output.print_json(made)
    else:
        opens = f"it opens gateways on the data folder {load(common).state}"
        output.print_lines([
            made["key"], f"id {made['id']}, tenant {made['tenant']}; the key is shown only now, and {opens}"
        ])  # fmt: skip


def _seconds(flag: str, text: str) -> float:
    from sluicegate.core.limits import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _on(common: Where, work: Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]) -> Any:
    """Do ``work`` on the data folder's rows; no provider is needed."""
    from sluicegate.wiring import rows

    settings = load(common)

    async def done() -> Any:
        async with rows(settings) as (store, ids, clock):
            return await work(store, ids, clock)

    return asyncio.run(done())
