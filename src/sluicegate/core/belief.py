"""What we believe of a deployment, learned from evidence (D9): its limit, how it counts, how long it takes.

The limit is the least of what the person configured (``cap``), what a number told (``known``: account, header or
refusal text) and what refusals without a number proved (``soft``, searched between ``floor``, a fill that was accepted,
and ``ceiling``, a fill that was refused). A *fill* is everything that counted at a create, the new part included, in the
ledger's tokens.

All times are Unix seconds, durations seconds, tokens whole numbers. Pure: evidence in, a new belief out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from sluicegate.core.limits import ENQUEUED_REQUESTS_MAX

CALM_START_S: Final = 30.0
"""The wait before a first probe where no batch has ended yet, so that nothing is known of the deployment's pace."""

SEARCH_ENDS_AT: Final = 1.35
"""The search between floor and ceiling stops when ``ceiling ≤ floor × this``: a finer answer costs more refusals."""

PROBE_BEYOND, REACH_MOST = 1.25, 4.0
"""How far beyond a known limit a probe goes: at first, and at most after probes that were let in and proved nothing,
because other batches had ended before they were looked at."""

GROWTH: Final = 1.5
"""By how much the soft limit grows after each acceptance when no ceiling is in sight."""

PROBE_AFTER_HOLDS: Final = 3.0
"""A probe is made when nothing was refused for this many times the usual life of a batch."""

SEARCHED_FOR: Final = 2.0
"""By how much later a probe is due while a search is on. Parts that are small against what is searched never reach it."""

BUSY: Final = 0.8
"""From this share of looks with answers on, the service is what holds work up, and a higher limit would bring little."""

PATIENCE: Final = 20.0
"""By how much longer a limit that was told is left alone then."""

FACTOR_LEAST, FACTOR_MOST = 0.5, 4.0
"""Calibration factors outside are not believed: they are another unit, not a count of the same thing."""

LAG_GUESSED_MOST_S: Final = 60.0
"""A release lag is first taken for four lives of a batch, or for so long: batches may live for hours, and a lag does not
grow with them. Each refusal in spite of it makes it three times as long."""

LAG_PATIENCE: Final = 6.0
"""For how many lags a release lag is believed before one part tries without it; doubled each time it comes back."""

SMOOTHING: Final = 0.3

REQUESTS_BELIEVED_S: Final = 86_400.0
"""For how long a learned limit of enqueued requests stands; the documented one is tried again then, for one refusal."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long the deployment's batches take, as exponentially weighted means over ended batches.

    Attributes:
        hold_s: From create to the end seen.
        validating_s: From create to ``in_progress`` or a late refusal.
        served: In how many of the looks, of late, some request had been answered since the look before.
        rate: Tokens per second of the whole deployment while batches of ours are held.
        ended: How many batches the means are made of.
    """

    hold_s: float | None = None
    validating_s: float | None = None
    rate: float | None = None
    served: float = 1.0
    ended: int = 0


class EnqueuedRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of the limit of enqueued *requests*, the second dimension (OpenAI's embeddings, F§3.1).

    Attributes:
        limit: As refusals told it, or None: the documented one. It counts until ``until``.
        evidence_at: When the newest piece of evidence came in; what was offered before it tells nothing new.
        in_a_row: Refusals since something was accepted; ``calm_until`` is when to offer again.
    """

    limit: int | None = None
    until: float = 0.0
    evidence_at: float = 0.0
    in_a_row: int = 0
    calm_until: float = 0.0


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """All that is believed of one deployment; stored as JSON with its row."""

    known: int | None = None
    known_source: str = ""
    known_at: float = 0.0
    soft: int | None = None
    floor: int = 0
    ceiling: int | None = None
    refused_at: float = 0.0
    evidence_at: float = 0.0
    refused_in_a_row: int = 0
    probed_at: float = 0.0
    probe_backoff: float = 1.0
    reach: float = PROBE_BEYOND
    calm_until: float = 0.0
    release_lag_s: float = 0.0
    lag_until: float = 0.0
    lag_patience: float = LAG_PATIENCE
    released_at: float = 0.0
    reuse_proven: bool = False
    headers_seen: bool = False
    creates_answered: int = 0
    text_factor: float | None = None
    char_factor: float | None = None
    pace: Pace = Pace()
    requests: EnqueuedRequests = EnqueuedRequests()

    @property
    def exists(self) -> bool:
        """True once a batch of ours has passed validation there: the provider knows a deployment of this name."""
        return self.pace.validating_s is not None

    # -- counting ---------------------------------------------------------------------------------------------------

    @property
    def tokens_factor(self) -> float:
        """What the provider counts per token of our estimate, at least 1.

        Usage below our estimate lowers nothing: it was measured on other requests, and those of the next part may count in
        full, as one long Chinese text does after many short ones whose overhead we count too high.
        """
        if self.text_factor is not None:
            return max(1.0, self.text_factor)
        # Before any usage is seen, a header that counts more than its formula hints that all is counted higher.
        return max(1.0, min(self.char_factor or 1.0, 1.5))

    @property
    def reuse_doubted(self) -> bool:
        """True from the first release until room that was released has been used again without a refusal.

        A provider may free tokens late (F§4.2); until that is known, one part at a time tries.
        """
        return self.released_at > 0.0 and not self.reuse_proven

    def lag_s(self, now: float) -> float:
        """How long after its end a batch is still counted. A lag is believed for a while, then tried without."""
        return self.release_lag_s if now < self.lag_until else 0.0

    def cautious_parts(self, now: float, doubtful: int) -> int | None:
        """How many parts may be out unproven while the reuse of what was released is in doubt; None: any number."""
        if self.release_lag_s and (now >= self.lag_until or self.reuse_doubted):
            return 1
        return doubtful if self.reuse_doubted else None

    @property
    def chars_factor(self) -> float:
        """What the provider counts at create per four characters of the bodies."""
        return self.char_factor if self.char_factor is not None else 1.0

    def requests_limit(self, now: float) -> int:
        """How many requests may be enqueued, where the provider limits them."""
        told = self.requests.limit if now < self.requests.until else None
        return ENQUEUED_REQUESTS_MAX if told is None else told

    def charge(self, tokens: int, quarter_chars: int, margin: float) -> int:
        """Tokens to reserve for requests that we estimate at ``tokens`` and whose bodies have 4 × ``quarter_chars``.

        Covers both of the provider's counts: by characters at create, by tokens while validating (F§4.1).
        """
        counted = max(self.tokens_factor * tokens, self.chars_factor * quarter_chars)
        return max(1, -int(-counted * margin // 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How far the gate may be filled now.

    Attributes:
        limit: Tokens, or None while nothing is known at all.
        source: Where the limit is known from, for people: configured, account, header, refusal, learned.
        proven: Up to this fill no refusal is expected; what goes beyond goes as one part.
        searching: A refusal is likely enough that only one unproven part may be out at a time.
    """

    limit: int | None
    source: str
    proven: int
    searching: bool


def allowance(belief: Belief, cap: int | None, now: float) -> Allowance:
    """The limit to fill to now; a probe beyond what is known is part of it when its time has come."""
    known, soft = belief.known, belief.soft
    searching = False
    source = belief.known_source
    if _probe_due(belief, now):
        if soft is not None:
            soft = max(round(belief.floor * PROBE_BEYOND), belief.ceiling or 0, soft)
            if _search_is_on(belief):
                soft = max(soft, known or 0)  # it stands still: what was refused long ago says nothing any more
            searching = True
        elif known is not None and belief.known_source == "refusal" and (cap is None or cap > known):
            known = round(known * belief.reach)
            searching = True
    if soft is not None and (known is None or soft < known):
        # Near enough to what was accepted, the search is over, and the soft limit is used like any other.
        searching = searching or soft > belief.floor * SEARCH_ENDS_AT
        source = "learned" if known is None else f"{source}+learned"
    limits = [x for x in (cap, known, soft) if x is not None]
    if not limits:
        return Allowance(limit=None, source="", proven=0, searching=True)
    limit = min(limits)
    if cap is not None and limit == cap and (known is None or cap < known):
        source = "configured" if not belief.known_source else f"configured+{belief.known_source}"
        searching = searching and soft is not None and soft <= cap
    settled = soft is not None and limit == soft and not searching
    return Allowance(
        limit=limit, source=source, proven=limit if settled else min(limit, belief.floor), searching=searching
    )


def _search_is_on(belief: Belief) -> bool:
    """Whether what was accepted and what was refused under a soft limit are still apart."""
    return belief.ceiling is None or belief.ceiling > belief.floor * SEARCH_ENDS_AT


def _probe_due(belief: Belief, now: float) -> bool:
    if not belief.refused_at:
        return False
    if belief.soft is None and (belief.known_source != "refusal" or belief.headers_seen):
        return False
    since = max(belief.refused_at, belief.known_at if belief.soft is None else 0.0)
    holds = PROBE_AFTER_HOLDS * belief.probe_backoff
    if belief.soft is None and belief.pace.served > BUSY:
        holds *= PATIENCE
    if belief.soft is not None and _search_is_on(belief):
        holds *= SEARCHED_FOR  # it needs a probe only where it does not get on
    return now - since >= holds * (belief.pace.hold_s or CALM_START_S)


def header_seen(belief: Belief, now: float, *, maximum: int | None, enqueued: int | None, quarter_chars: int) -> Belief:
    """Azure's headers on a create: the limit itself, and the file's tokens by characters (F§4.1).

    Args:
        quarter_chars: Our own count by the same formula for the same file.
    """
    belief = msgspec.structs.replace(belief, creates_answered=belief.creates_answered + 1)
    if maximum is not None and maximum > 0:
        grown = belief.known is not None and maximum > belief.known
        belief = msgspec.structs.replace(
            belief,
            known=maximum,
            known_source="header",
            known_at=now,
            headers_seen=True,
            # A limit that has just been raised makes what refusals proved before it stale.
            soft=None if grown or (belief.soft or 0) >= maximum else belief.soft,
            ceiling=None if grown else belief.ceiling,
        )
    if enqueued is not None and enqueued > 0 and quarter_chars >= 50:
        ratio = enqueued / quarter_chars
        if FACTOR_LEAST <= ratio <= FACTOR_MOST:
            # Never below what was seen: a reservation too small costs a refusal, one too large costs little.
            belief = msgspec.structs.replace(belief, char_factor=max(belief.char_factor or 0.0, ratio))
    return belief


def account_seen(belief: Belief, now: float, limit: int) -> Belief:
    """The account's own number (``sku.capacity`` × 1,000). A header or a refusal seen later says more."""
    if belief.known_source in ("header", "refusal"):
        return belief
    return msgspec.structs.replace(belief, known=limit, known_source="account", known_at=now)


def usage_seen(belief: Belief, *, counted: int, estimated: int) -> Belief:
    """The provider's ``prompt_tokens`` against our estimate, summed over a part's answered requests."""
    if estimated < 200:
        return belief
    ratio = counted / estimated
    if not FACTOR_LEAST <= ratio <= FACTOR_MOST:
        return belief
    before = belief.text_factor
    # Rises at once (the quota is at stake), falls slowly.
    factor = ratio if before is None or ratio >= before else before + SMOOTHING * (ratio - before)
    after = msgspec.structs.replace(belief, text_factor=factor)
    scale = after.tokens_factor / belief.tokens_factor
    return _rescaled(after, scale) if scale > 1.0 else after


def _rescaled(belief: Belief, scale: float) -> Belief:
    """What was proved in the old unit, in the new one; a refusal that a known limit now explains proves nothing more."""
    ceiling = None if belief.ceiling is None else round(belief.ceiling * scale)
    soft = None if belief.soft is None else round(belief.soft * scale)
    if belief.known is not None and ceiling is not None and ceiling > belief.known:
        ceiling, soft = None, None
    return msgspec.structs.replace(belief, floor=round(belief.floor * scale), ceiling=ceiling, soft=soft)


def accepted(belief: Belief, now: float, *, fill: int, proven: int, offered_at: float, probing: bool) -> Belief:
    """A part has passed validation.

    Args:
        fill: What counted by our books when it was offered, itself included. Ceilings are known in the same measure.
        proven: What was held all the time from its create until now, by it and by what was there before it: a late
            check sees only that, so what ended meanwhile proves nothing. Only this can disprove a number.
    """
    known, source, soft, ceiling = belief.known, belief.known_source, belief.soft, belief.ceiling
    # Under a known number a soft limit means that others hold something unseen, which comes and goes: like is compared
    # with like, fill with fill, as long as the search is on. Without a number the truth is between what was offered and
    # what is proven. A settled limit rises by proof alone: a fill has in it what ended and was not yet seen to.
    settled = ceiling is not None and ceiling <= belief.floor * SEARCH_ENDS_AT
    measure = proven
    if soft is not None and (probing or not settled):
        measure = fill if known is not None else (fill + proven) // 2
    floor = max(belief.floor, measure)
    if known is not None and source == "refusal" and proven > known:
        known, source, soft, ceiling, floor = None, "", round(fill * GROWTH), None, max(floor, fill)
    elif soft is not None:
        if ceiling is not None and measure >= ceiling:
            ceiling = None
        if probing and ceiling is None and known is not None:
            soft = None  # whoever held the rest unseen has gone: the number counts again
        elif (measure if settled else fill) > 0.9 * soft:
            if ceiling is None:
                soft = round(measure * GROWTH)
            elif ceiling > floor * SEARCH_ENDS_AT:
                soft = _between(floor, ceiling)
            else:
                soft = floor
    if soft is not None and known is not None and soft >= known:
        soft, ceiling = None, None
    tried = belief.release_lag_s > 0.0 and offered_at >= belief.lag_until
    # What a probe has to beat: a floor that a release lag has reset is not news when it is reached again.
    beaten = max(belief.floor, (belief.known or 0) if belief.soft is None else 0)
    return msgspec.structs.replace(
        belief,
        release_lag_s=0.0 if tried else belief.release_lag_s,
        floor=floor,
        known=known,
        known_source=source,
        soft=soft,
        ceiling=ceiling,
        refused_in_a_row=0,
        probed_at=now if probing else belief.probed_at,
        # A lag that one part has disproved is doubted at the next release as at the very first one.
        released_at=now if tried else belief.released_at,
        reuse_proven=not tried and (belief.reuse_proven or 0.0 < belief.released_at < offered_at),
        probe_backoff=1.0 if belief.refused_at and proven > beaten else belief.probe_backoff,
        reach=min(REACH_MOST, belief.reach * GROWTH) if probing and known is not None else belief.reach,
        requests=msgspec.structs.replace(belief.requests, in_a_row=0),
    )


def refused(
    belief: Belief,
    now: float,
    *,
    offered_at: float,
    fill: int,
    others: int,
    limit: int | None,
    freed: float | None,
    returned: int,
    probing: bool,
    crowded: bool = False,
) -> Belief:
    """A part was refused, at create or after validating (D11).

    Args:
        offered_at: When it was offered. Parts that were under way already when another's refusal came in tell nothing
            new: one burst is one piece of evidence.
        fill: What counted at its create by our books, itself included.
        others: The same without itself.
        limit: The number in the refusal's text, or None.
        freed: Seconds since the newest release of ours that could still be counted by a provider that frees late;
            None if nothing was released lately. ``returned``: the tokens of all such releases.
        probing: The part was a deliberate step beyond what was known.
        crowded: Others' batches came to light after it was offered: they took the room, so that under a known limit
            the refusal says nothing of the limit and nothing of when the provider frees tokens.
    """
    hold = belief.pace.hold_s or CALM_START_S
    # Not the last refusal: of parts that are offered in turns, each would be excused by the one before it.
    burst = offered_at < belief.evidence_at
    probed = not probing and belief.probed_at > 0.0 and now < belief.probed_at + hold
    step = probing and belief.floor > 0  # beyond a fill that is proven: a refusal was to be expected
    in_a_row = belief.refused_in_a_row + (0 if step else 1)
    belief = msgspec.structs.replace(
        belief,
        refused_at=now,
        evidence_at=belief.evidence_at if burst else now,
        refused_in_a_row=belief.refused_in_a_row if burst else in_a_row,
        probe_backoff=min(16.0, belief.probe_backoff * 1.5) if probing else belief.probe_backoff,
        reach=PROBE_BEYOND,
    )
    if limit is not None:
        explained = fill > limit
        shrunk = belief.known is not None and limit < belief.known
        belief = msgspec.structs.replace(
            belief, known=limit, known_source="refusal", known_at=now, floor=min(belief.floor, limit)
        )
        if shrunk:
            belief = msgspec.structs.replace(belief, soft=None, ceiling=None)
        if explained:
            return belief
    if burst:
        return belief
    if crowded and belief.known is not None:
        return msgspec.structs.replace(belief, calm_until=now + _calm(belief, in_a_row))
    if probed and belief.known is not None:
        # The part before it went beyond the limit on purpose and was let in: wait until that has passed.
        return msgspec.structs.replace(belief, calm_until=now + 0.5 * hold)
    if step:
        ceiling = max(fill, belief.floor + 1)
        searched = ceiling <= belief.floor * SEARCH_ENDS_AT
        soft = belief.floor if searched else _between(belief.floor, ceiling)
        return msgspec.structs.replace(belief, ceiling=ceiling, soft=soft)
    if belief.soft is not None and fill <= belief.floor:
        # Less is free than it was: what others hold unseen has grown.
        floor = round(0.9 * fill)
        return msgspec.structs.replace(
            belief, ceiling=fill, floor=floor, soft=floor, calm_until=now + _calm(belief, in_a_row)
        )
    tried = belief.release_lag_s > 0.0 and now >= belief.lag_until
    if (
        freed is not None
        and fill <= max(belief.floor, belief.known or 0)
        and fill + returned > (belief.known or 0)  # else even all of it, still counted, would have fitted
        and (tried or belief.release_lag_s < 6 * hold)
    ):
        # Accepted before at this fill, and something of ours ended lately: the provider frees late (F§4.2).
        longer = max(3 * freed, min(4 * hold, LAG_GUESSED_MOST_S), 3 * belief.release_lag_s)
        lag = belief.release_lag_s if tried else longer
        patience = belief.lag_patience * (2.0 if tried else 1.0)
        return msgspec.structs.replace(
            belief, release_lag_s=lag, lag_until=now + patience * lag, lag_patience=patience, floor=0,
            calm_until=now + _calm(belief, in_a_row),
        )  # fmt: skip
    floor = belief.floor if belief.floor < fill else 0
    floor = min(floor, others) if others and floor > others else floor
    soft = _between(floor, fill) if fill > floor * SEARCH_ENDS_AT else floor
    return msgspec.structs.replace(
        belief, ceiling=fill, floor=floor, soft=max(1, soft), calm_until=now + _calm(belief, in_a_row)
    )


def requests_refused(belief: Belief, now: float, *, offered_at: float, fill: int, limit: int | None) -> Belief:
    """A part was refused for want of enqueued *requests*; nothing of this is said of tokens.

    Args:
        offered_at: When it was offered, as in :func:`refused`.
        fill: Requests that counted at its create by our books, itself included.
        limit: The number in the refusal's text, or None.
    """
    before = belief.requests
    burst = offered_at < before.evidence_at
    in_a_row = before.in_a_row + (0 if burst else 1)
    until = now + REQUESTS_BELIEVED_S
    if limit is None or fill <= limit:
        # No number, or others hold what is not seen: room for half, for as long as that may last.
        if burst:
            return belief
        limit = max(1, min(fill, belief.requests_limit(now)) // 2)
        until = now + PROBE_AFTER_HOLDS * (belief.pace.hold_s or CALM_START_S)
    requests = EnqueuedRequests(
        limit=limit, until=until, evidence_at=before.evidence_at if burst else now, in_a_row=in_a_row,
        calm_until=now + _calm(belief, in_a_row),
    )  # fmt: skip
    return msgspec.structs.replace(belief, requests=requests)


def requests_told(belief: Belief, now: float, limit: int) -> Belief:
    """The number in a refusal of requests that came before us; one of our own says more."""
    if now < belief.requests.until:
        return belief
    requests = msgspec.structs.replace(belief.requests, limit=limit, until=now + REQUESTS_BELIEVED_S)
    return msgspec.structs.replace(belief, requests=requests)


def _between(floor: int, ceiling: int) -> int:
    """The next fill to try: the geometric mean, since a limit's order of magnitude is what is unknown at first."""
    return max(1, round(math.sqrt(max(floor, ceiling / 16) * ceiling)))


def _calm(belief: Belief, in_a_row: int) -> float:
    """How long to offer nothing after an unexplained refusal: nothing at first, then doubling (D11)."""
    if in_a_row <= 1:
        return 0.0
    base = belief.pace.validating_s or 5.0
    return float(min(600.0, 0.25 * base * 2.0 ** min(in_a_row - 2, 10)))


def batch_ended(belief: Belief, now: float, *, hold_s: float, tokens: int, overlap: float) -> Belief:
    """A batch of ours ended after ``hold_s``; ``overlap`` is how many of ours were held at once on average."""
    pace = belief.pace
    rate = tokens * max(1.0, overlap) / max(hold_s, 1e-3)
    return msgspec.structs.replace(
        belief,
        released_at=belief.released_at or now,
        pace=Pace(
            hold_s=_mean(pace.hold_s, hold_s),
            validating_s=pace.validating_s,
            rate=_mean(pace.rate, rate),
            served=pace.served,
            ended=pace.ended + 1,
        ),
    )


def looked(belief: Belief, *, served: bool) -> Belief:
    """A look at batches of ours; ``served`` tells whether one of their requests was answered since the look before."""
    pace = belief.pace
    share = pace.served + SMOOTHING / 3 * ((1.0 if served else 0.0) - pace.served)
    return msgspec.structs.replace(belief, pace=msgspec.structs.replace(pace, served=share))


def validated(belief: Belief, validating_s: float) -> Belief:
    """A batch of ours left ``validating`` after that long."""
    pace = msgspec.structs.replace(belief.pace, validating_s=_mean(belief.pace.validating_s, validating_s))
    return msgspec.structs.replace(belief, pace=pace)


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + SMOOTHING * (value - before)


def dump(belief: Belief) -> str:
    """The belief as JSON."""
    return msgspec.json.encode(belief).decode()


def load(text: str | None) -> Belief:
    """The belief from :func:`dump`'s JSON; a new one from nothing."""
    return msgspec.json.decode(text, type=Belief) if text else Belief()
