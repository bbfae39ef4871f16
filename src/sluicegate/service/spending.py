"""What a run has cost, what is under way will cost, and how much more may go under ``--max-cost``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sluicegate.core.lifecycle import UNDER_WAY
from sluicegate.core.prices import cost
from sluicegate.core.rows import PartRow
from sluicegate.core.waiting import Spans
from sluicegate.ports import Tx
from sluicegate.service.context import Policy
from sluicegate.service.work import Work

MEASURED_WITH: Final = 0.05
"""Share of the money whose input goes first, alone, where nothing says how long answers are: it is answered before more
goes. An answer costs a few times its request, so the whole of this sample stays a fraction of the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What may still be spent.

    Attributes:
        spent: USD, with what is under way as it is expected to come out.
        requests: How many of those that wait for the deployment may go now; None: as many as there are.
    """

    spent: float
    requests: int | None


def means(tx: Tx, work: Work, policy: Policy, name: str) -> Means | None:
    """How much more may go to the deployment ``name`` under the policy's ``max_cost``, or None if a price is not known."""
    assert policy.max_cost is not None, "without a bound all may go"
    parts = tx.parts(run=work.run.id)
    output = _output_of_one(parts, policy)
    spent = 0.0
    for part in parts:
        waits = part.stage in UNDER_WAY
        one = _cost(
            work, policy, part.group, part.input_tokens + (part.tokens if waits else 0),
            part.output_tokens + (part.count * (output or 0.0) if waits else 0.0), part.cached_tokens,
        )  # fmt: skip
        if one is None:
            return None
        spent += one
    waiting = _waiting_for(tx, work, name)
    if not waiting:
        return Means(spent=spent, requests=None)
    group, spans = waiting
    each = _cost(work, policy, group, work.sums(spans)[0] / len(spans), output or 0.0)
    if each is None:
        return None
    left = policy.max_cost - spent
    if output is None:
        if any(part.stage in UNDER_WAY for part in parts):
            return Means(spent=spent, requests=0)
        left = min(left, max(each, policy.max_cost * MEASURED_WITH))
    return Means(spent=spent, requests=None if each == 0.0 else max(0, int(left / each)))


def _output_of_one(parts: list[PartRow], policy: Policy) -> float | None:
    """Tokens of a usual answer: the mean so far, else the setting. 0 there says nothing to go by."""
    answered = sum(part.answered for part in parts)
    if answered:
        return sum(part.output_tokens for part in parts) / answered
    return policy.expected_output_tokens or None


def _waiting_for(tx: Tx, work: Work, name: str) -> tuple[int, Spans] | None:
    """What waits for a deployment, of the group that is next."""
    found = [(g, spans) for (g, _), spans in tx.waiting(work.run.id).items() if spans and work.deployment_of(g) == name]
    return min(found, key=lambda one: work.ordinal(one[1].spans[0][0]), default=None)


def _cost(
    work: Work, policy: Policy, group: int, input_tokens: float, output_tokens: float, cached_tokens: float = 0.0
) -> float | None:
    named = work.groups[group].model
    model = policy.models.get(work.deployment_of(group)) or policy.models.get(named, named)
    return cost(model, input_tokens, output_tokens, cached_tokens=cached_tokens, prices=policy.prices)
