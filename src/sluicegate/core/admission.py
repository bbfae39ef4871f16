"""Admit or hold back, and how large the next part may be (D1, D8): one pure function over what is known now.

Why parts have the size they have. The provider frees a batch as a whole, so a limit filled by one large batch stands
still until all of it is done; many small ones release early and keep the gate full. About as many parts should be
under way as there are looks at the list in one batch's life, since a look is when room is noticed. Sizes are made
unequal on purpose: equal parts that share a service rate run in step, end together and leave the service idle in
between. When everything that waits fits at once there is nothing to gain, so it goes as one part. What goes beyond a
fill that is proven goes as one part as well, so that a wrong belief costs one refusal and not ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sluicegate.core.belief import Allowance, Belief

PARTS_LEAST, PARTS_MOST, PARTS_USUAL = 11, 16, 11
"""Parts under way at once: bounds, and the number while no batch has ended yet."""

SMALLEST, LARGEST = 0.3, 2.4
"""Sizes of parts, in means."""

FIRST_PART_SHARE: Final = 0.05
"""Of the waiting work, in the first part to a deployment of which nothing is known: small enough to be sure to fit
almost anywhere, and its answer's header may tell the limit."""

FIRST_PART_MOST: Final = 20_000
"""And no more tokens than this: the smallest limits that people report are 30K."""

FEW_LOOKS: Final = 8
"""A batch that lives for fewer looks than this makes parts go in step with the looks: what goes at one look comes back at
one, and the service has too much and then nothing. There no more goes at a look than leaves at one on average."""

DOUBTFUL_PARTS: Final = 3
"""Parts that may use room which the very first releases made, before one of them has passed validation."""

LEAST_PIECE: Final = 0.35
"""Of the wanted part size: headroom smaller than this is left to grow while other batches will release more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A deployment as it is when a decision is due. Token amounts are in ledger tokens.

    Attributes:
        reserved, held: The ledger's balance, all runs together.
        foreign: Others' batches; ``lagging``: what ended so lately that the provider may still count it.
        unproven: Parts that were offered beyond the proven fill and whose answer is not known yet.
        submitting: Parts reserved or submitting, of this run.
        answers_awaited: Creates (of any run) that have not been answered, while no create ever was.
        waiting: What this run could still submit here; ``largest`` is its largest single request's charge.
        mine: What this run has reserved and held; ``my_share`` how much it may, None where it is alone; ``fair_share`` how
            much it might if everybody could use theirs.
        tenant_share: How much its tenant may, all its runs together; a run without a tenant is one of its own.
        whole: It is small, and waits until all that waits of it goes as one part.
        one_over_share: It may exceed its share by one request: nothing of its tenant's is under way, and it is the first.
        set_aside: What is left free for other runs' requests that need more than their share, and have their turn.
        lately: Parts of this deployment that were cut since the last look, for ``poll_s`` at most, all runs together.
        serial: How many parts this run has cut, for sizes that differ.
        requests: How many requests count, where the provider limits enqueued requests as well, else None.
    """

    limits: Allowance
    belief: Belief
    reserved: int
    held: int
    foreign: int
    lagging: int
    unproven: int
    submitting: int
    waiting: int
    largest: int
    mine: int
    my_share: int | None
    fair_share: int | None
    tenant_share: int | None
    whole: bool
    one_over_share: bool
    set_aside: int
    lately: int
    serial: int
    paused: bool
    creates_left: int
    creates_left_at: float | None
    files_left: int
    poll_s: float
    part_s_least: float
    requests: int | None = None

    @property
    def fill(self) -> int:
        """Everything that counts against the limit now."""
        return self.reserved + self.held + self.foreign + self.lagging


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Cut a part of at most ``size`` tokens; ``alone``: it is an empty gate, and one request may go on margin only.

    Attributes:
        size_at_need: For a part of one request that is larger than ``size``: it would wait for ever otherwise.
    """

    size: int
    size_at_need: int = 0
    reason: str
    unproven: bool
    probing: bool
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBack:
    """Not now. ``until`` is when to ask again at the latest, or None: when something is released."""

    reason: str
    until: float | None = None


def decide(gate: Gate, now: float) -> Admit | HoldBack:
    """Whether the next part may be cut now, and how large it may be.

    The result depends on nothing but the arguments. ``fill + size ≤ limit`` holds for every Admit but ``alone``.
    """
    verdict = _obstacle(gate, now)
    if verdict is not None:
        return verdict
    limit = gate.limits.limit
    if limit is None:
        return _first_steps(gate)
    room = limit - gate.fill
    if gate.fill == 0 and gate.largest > limit:
        return Admit(
            size=limit, size_at_need=gate.largest, unproven=True, probing=False, alone=True,
            reason=f"one request is estimated at {gate.largest:,} tokens, above the limit of {limit:,} only by the "
            "margin: it goes alone",
        )  # fmt: skip
    room = max(0, room - gate.set_aside)
    if not room and gate.set_aside:
        return HoldBack(reason="another run's next request needs more than its share of the limit, and has its turn")
    if gate.my_share is not None:
        mine = gate.my_share - gate.mine
        if gate.one_over_share:  # a request that is larger than the share could never go otherwise
            mine = max(mine, gate.largest)
        # Pieces are no smaller than the largest request, but for one that no share of its tenant's will ever hold.
        never = gate.largest > (gate.my_share if gate.tenant_share is None else gate.tenant_share)
        least = gate.waiting if gate.whole else _mean(gate, limit) if never else gate.largest
        if mine < room and mine < min(gate.waiting, least):
            return HoldBack(reason="this run has its fair share of the limit; another run is waiting too")
        room = min(room, max(mine, 0))
    elif gate.waiting > room and _outpaces(gate, limit, room):
        return HoldBack(
            reason="as much went at this look as leaves at one: more would come back all at once",
            until=now + gate.poll_s,
        )
    least = gate.waiting if gate.whole else min(gate.largest, _size(gate, limit) * LEAST_PIECE)
    if room <= 0 or (room < gate.waiting and room < least):
        return HoldBack(reason=f"the gate is full: {gate.fill:,} of {limit:,} tokens")
    return _admit(gate, limit, room, doubted=gate.belief.cautious_parts(now, DOUBTFUL_PARTS) is not None)


def _obstacle(gate: Gate, now: float) -> HoldBack | None:
    if gate.paused:
        return HoldBack(reason="the deployment is paused by hand (sluicegate quota resume lets it go on)")
    if gate.waiting <= 0:
        return HoldBack(reason="nothing waits for this deployment")
    if now < gate.belief.calm_until:
        return HoldBack(reason="slowed down after refusals", until=gate.belief.calm_until)
    if gate.creates_left <= 0:
        return HoldBack(
            reason="the provider's limit of batch creations per hour is reached", until=gate.creates_left_at
        )
    if gate.requests is not None:
        if now < gate.belief.requests.calm_until:
            return HoldBack(reason="slowed down after refusals", until=gate.belief.requests.calm_until)
        most = gate.belief.requests_limit(now)
        if gate.requests >= most:
            return HoldBack(
                reason=f"the provider's limit of enqueued requests is reached: {gate.requests:,} of {most:,}"
            )
    if gate.files_left <= 0:
        return HoldBack(reason="the resource holds as many files as it may; waiting for some to be deleted")
    if gate.limits.searching and gate.unproven > (1 if gate.limits.limit is None else 0):
        # While no limit is known the small first part has said all it can with its answer: it is not waited for again.
        return HoldBack(reason="waiting for the answer to a part that goes beyond the proven fill")
    cautious = gate.belief.cautious_parts(now, DOUBTFUL_PARTS)
    if cautious is not None and gate.unproven >= cautious:
        return HoldBack(reason="waiting whether the provider has freed what ended: one part tries first")
    if not gate.belief.creates_answered and gate.submitting:
        return HoldBack(reason="waiting for the first answer of this deployment")
    return None


def _first_steps(gate: Gate) -> Admit | HoldBack:
    if not gate.belief.creates_answered:
        size = max(gate.largest, min(FIRST_PART_MOST, round(gate.waiting * FIRST_PART_SHARE)))
        return Admit(
            size=size, unproven=True, probing=False,
            reason=f"the limit is not known yet: a first part of {size:,} tokens, whose answer may tell it",
        )  # fmt: skip
    return Admit(
        size=gate.waiting, unproven=True, probing=False,
        reason="no limit is known and none was told: everything is offered, a refusal will tell the limit",
    )  # fmt: skip


def _admit(gate: Gate, limit: int, room: int, *, doubted: bool) -> Admit | HoldBack:
    proven_room, at_need = gate.limits.proven - gate.fill, min(room, gate.largest)
    size = _size(gate, limit)
    # Behind the last piece of one run others' work waits: it goes whole only if it is no larger than a part may be.
    last = gate.my_share is None or gate.whole or gate.waiting <= _mean(gate, limit) * LARGEST
    if gate.waiting <= room and last and (gate.waiting <= proven_room or not gate.limits.searching):
        return Admit(
            size=room, unproven=doubted or gate.waiting > proven_room, probing=False,
            reason=f"all that waits ({gate.waiting:,} tokens) fits into the room of {room:,}",
        )  # fmt: skip
    if proven_room >= size * LEAST_PIECE and proven_room >= min(gate.largest, room):
        room = min(room, proven_room)
        unproven = False
    elif gate.limits.searching:
        return Admit(
            size=room, unproven=True, probing=True,
            reason=f"up to {gate.limits.proven:,} tokens are proven; one part of {room:,} tries whether more fits",
        )  # fmt: skip
    else:
        # A limit that was told but not seen yet: the first half of what others leave goes in pieces, the rest in one, so
        # that a number that is twice as high as the truth costs one refusal.
        unproven = True
        half = (limit + gate.foreign) // 2
        if half - gate.fill >= min(size * LEAST_PIECE, gate.largest):
            room = min(room, half - gate.fill)
            size = room if room < 2 * size else size
        else:
            size = room
    if size * (1 + LEAST_PIECE) >= room:
        size = room
    full = 100 * (gate.fill + size) // limit
    hold = gate.belief.pace.hold_s
    basis = f"a batch lives about {hold:,.0f} s here" if hold else "no batch has ended here yet"
    return Admit(
        size=size, size_at_need=at_need, unproven=doubted or unproven, probing=False,
        reason=f"a part of up to {size:,} tokens fills the gate to {full} % ({basis}; room {room:,})",
    )  # fmt: skip


def _outpaces(gate: Gate, limit: int, room: int) -> bool:
    """Whether enough went at this look already; not while half of what is open to us or more stands empty."""
    hold = gate.belief.pace.hold_s
    if not hold or hold >= FEW_LOOKS * gate.poll_s:
        return False
    open_to_us = _open_to_us(gate, limit)
    return room < open_to_us / 2 and gate.lately >= open_to_us * gate.poll_s / hold


def _open_to_us(gate: Gate, limit: int) -> int:
    """What others' batches and late releases leave of the limit."""
    return max(1, limit - gate.foreign - gate.lagging)


def _mean(gate: Gate, limit: int) -> float:
    """The mean size of parts in tokens."""
    hold = gate.belief.pace.hold_s
    parts = PARTS_USUAL if hold is None else min(PARTS_MOST, max(PARTS_LEAST, round(hold / max(gate.poll_s, 1e-3))))
    open_to_us = _open_to_us(gate, limit)
    if gate.tenant_share is not None:
        open_to_us = max(1, min(open_to_us, gate.tenant_share))
    return open_to_us / parts


def _size(gate: Gate, limit: int) -> int:
    """The wanted part size in tokens, before it meets the room."""
    # Between SMALLEST and LARGEST of the mean, in the order of the golden ratio, so that neighbours differ. Many are small and
    # few are large: of parts that share a service the small ones end early and keep the gate moving, the large ones keep it
    # busy.
    spread = SMALLEST + (LARGEST - SMALLEST) * ((gate.serial * 0.6180339887498949) % 1.0) ** 2
    hold = gate.belief.pace.hold_s
    rate = limit / hold if hold else 0.0
    return max(1, round(_mean(gate, limit) * spread), round(rate * gate.part_s_least))
