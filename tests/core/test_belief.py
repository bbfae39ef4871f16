"""What is learned from evidence (D9): each test is one piece of evidence and what follows from it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.core import belief as b
from sluicegate.core.belief import Belief
from sluicegate.core.limits import ENQUEUED_REQUESTS_MAX


def refuse(belief: Belief, now: float, fill: int, limit: int | None = None, **more: object) -> Belief:
    given = {"offered_at": now - 1.0, "others": 0, "freed": None, "returned": 0, "probing": False} | more
    return b.refused(belief, now, fill=fill, limit=limit, **given)  # type: ignore[arg-type]


def accept(belief: Belief, fill: int, offered_at: float = 0.0, *, probing: bool = False) -> Belief:
    return b.accepted(belief, offered_at, fill=fill, proven=fill, offered_at=offered_at, probing=probing)


def idle(belief: Belief) -> Belief:
    """The service answers now and then only: the limit is what holds work up."""
    for i in range(30):
        belief = b.looked(belief, served=i % 2 == 0)
    return belief


def test_a_number_in_a_refusal_is_the_limit_and_says_where_it_is_from() -> None:
    """ "30K" in the text ends all guessing."""
    known = refuse(Belief(), 10.0, 285_000, 30_000)

    allowed = b.allowance(known, None, 11.0)
    assert (allowed.limit, allowed.source) == (30_000, "refusal")


def test_the_persons_limit_is_a_cap_that_refusals_correct_downwards() -> None:
    """``--limit`` is never exceeded, and believed no longer when the provider proves it too high."""
    told_too_high = refuse(Belief(), 10.0, 120_000, 60_000)

    assert b.allowance(Belief(), 120_000, 0.0).limit == 120_000
    assert b.allowance(told_too_high, 120_000, 11.0).limit == 60_000
    assert b.allowance(told_too_high, 40_000, 11.0).limit == 40_000
    assert b.allowance(told_too_high, 40_000, 11.0).source.startswith("configured")


def test_headers_follow_a_limit_that_changes_in_both_directions() -> None:
    """Azure tells the limit with every create: the newest header counts."""
    known = b.header_seen(Belief(), 1.0, maximum=60_000, enqueued=None, quarter_chars=0)
    raised = b.header_seen(known, 2.0, maximum=180_000, enqueued=None, quarter_chars=0)
    halved = b.header_seen(raised, 3.0, maximum=30_000, enqueued=None, quarter_chars=0)

    assert [b.allowance(x, None, 4.0).limit for x in (known, raised, halved)] == [60_000, 180_000, 30_000]


@given(st.integers(5_000, 2_000_000_000), st.integers(0, 20))
def test_without_a_number_the_search_finds_most_of_the_limit_in_few_refusals(limit: int, skew: int) -> None:
    """From nothing known, bisection on a logarithmic scale: at most 12 refusals, and at least half is found."""
    belief, refusals, offers = Belief(), 0, 0
    fill = limit * (2 + skew)
    now = 0.0
    while offers < 60:
        offers += 1
        now += 10.0
        if fill > limit:
            refusals += 1
            belief = refuse(belief, now, fill)
        else:
            belief = accept(belief, fill, now)
        allowed = b.allowance(belief, None, now)
        assert allowed.limit is not None
        if allowed.limit == fill:
            break
        fill = allowed.limit
    assert refusals <= 12
    assert limit / 2 <= belief.floor <= limit


def test_one_burst_of_refusals_is_one_piece_of_evidence() -> None:
    """Parts that were under way when the first refusal came in do not halve the limit again and again."""
    first = refuse(accept(Belief(), 20_000, 0.0), 10.0, 60_000)

    again = refuse(first, 11.0, 59_000, offered_at=9.0)
    assert (again.soft, again.ceiling, again.floor) == (first.soft, first.ceiling, first.floor)


def test_a_refusal_below_a_fill_that_was_accepted_suggests_late_release() -> None:
    """The provider frees late (F§4.2): what ended lately is counted on, and one part at a time tries."""
    proven = accept(Belief(known=60_000, known_source="header"), 60_000, 0.0)
    ended = b.batch_ended(proven, 100.0, hold_s=10.0, tokens=5_000, overlap=3.0)

    late = refuse(ended, 103.0, 59_000, 60_000, freed=1.0, returned=5_000)
    assert late.release_lag_s >= 10.0
    assert late.reuse_doubted
    assert b.allowance(late, None, 104.0).limit == 60_000


def test_a_release_lag_is_not_taken_for_lives_of_batches_that_live_long() -> None:
    """Found by the simulation (seed 662589): tokens freed 5 s late were counted for 40 minutes, six times over."""
    proven = accept(Belief(known=60_000, known_source="header"), 60_000, 0.0)
    ended = b.batch_ended(proven, 10_000.0, hold_s=3_600.0, tokens=5_000, overlap=3.0)

    late = refuse(ended, 10_003.0, 59_000, 60_000, freed=1.0, returned=5_000)
    later = refuse(late, 10_070.0, 59_000, 60_000, freed=30.0, returned=5_000)
    assert (late.release_lag_s, later.release_lag_s) == (60.0, 180.0)


def test_a_refusal_of_what_would_fit_beside_all_that_ended_lately_is_no_late_release() -> None:
    """Found by the simulation (seeds 50435, 60692): others in no list held everything, and each part waited for a lag."""
    ended = b.batch_ended(Belief(), 100.0, hold_s=10.0, tokens=5_000, overlap=3.0)

    crowded = refuse(ended, 103.0, 300, 60_000, freed=1.0, returned=5_000)
    assert crowded.release_lag_s == 0.0
    assert crowded.soft is not None
    assert crowded.soft <= 300


def test_a_refusal_by_others_who_came_meanwhile_says_nothing_of_late_release() -> None:
    """Found by `quota` beside others' batches: each such refusal kept the gate closed for lives of a batch."""
    proven = accept(Belief(known=60_000, known_source="header"), 60_000, 0.0)
    ended = b.batch_ended(proven, 100.0, hold_s=10.0, tokens=5_000, overlap=3.0)

    crowded = refuse(ended, 103.0, 59_000, 60_000, freed=1.0, returned=5_000, crowded=True)
    assert (crowded.release_lag_s, crowded.soft) == (0.0, None)
    again = refuse(refuse(crowded, 110.0, 59_000, 60_000, crowded=True), 117.0, 59_000, 60_000, crowded=True)
    assert again.calm_until > 117.0


def test_a_release_lag_is_tried_without_after_a_while_and_believed_longer_if_it_comes_back() -> None:
    """One mistaken refusal must not slow a deployment down for ever."""
    proven = accept(Belief(known=60_000, known_source="header"), 60_000, 0.0)
    ended = b.batch_ended(proven, 100.0, hold_s=10.0, tokens=5_000, overlap=3.0)
    late = refuse(ended, 103.0, 59_000, 60_000, freed=1.0, returned=5_000)
    lag = late.release_lag_s
    over = late.lag_until
    assert (late.lag_s(104.0), late.lag_s(over)) == (lag, 0.0)
    assert late.cautious_parts(over, 3) == 1

    assert accept(late, 59_000, over + 1.0).release_lag_s == 0.0
    assert accept(late, 59_000, over - 1.0).release_lag_s == lag
    back = refuse(late, over + 2.0, 59_000, 60_000, freed=1.0, returned=5_000)
    assert back.lag_s(over + 3.0) == lag
    assert back.lag_until - (over + 2.0) == pytest.approx(2 * (over - 103.0))


def test_a_search_that_stands_still_is_ended_by_a_probe_of_the_whole_limit() -> None:
    """Found by the simulation (seed 650236): parts of one request never reached the ceiling, for twenty lives of a batch."""
    others = Belief(known=500_000, known_source="refusal", refused_at=100.0, floor=133, ceiling=400, soft=200,
                    pace=b.Pace(hold_s=40.0))  # fmt: skip
    due = 100.0 + 2 * 3 * 40.0
    assert b.allowance(others, None, due - 1.0).limit == 200
    probe = b.allowance(others, None, due)
    assert (probe.limit, probe.proven, probe.searching) == (500_000, 133, True)

    let_in = accept(others, 3_000, due + 1.0, probing=True)
    assert b.allowance(let_in, None, due + 2.0).limit == 500_000
    again = refuse(others, due + 1.0, 3_000, 500_000, offered_at=due, probing=True)
    assert again.floor == 133 and b.allowance(again, None, due + 2.0).limit in range(134, 3_000)


def test_a_probe_is_made_only_after_calm_and_its_refusal_makes_the_next_one_rarer() -> None:
    """Growing back is careful: three lives of a batch without a refusal, then longer."""
    known = refuse(Belief(), 100.0, 90_000, 60_000)
    known = idle(b.batch_ended(known, 110.0, hold_s=10.0, tokens=1, overlap=1.0))

    assert b.allowance(known, None, 120.0).limit == 60_000
    probe = b.allowance(known, None, 131.0)
    assert probe.limit == 75_000 and probe.searching

    refused = refuse(known, 135.0, 75_000, 60_000, probing=True)
    assert b.allowance(refused, None, 135.0 + 31.0).limit == 60_000
    assert b.allowance(refused, None, 135.0 + 46.0).limit == 75_000


def test_while_the_service_is_what_holds_work_up_a_told_limit_is_left_alone() -> None:
    """More room would bring nothing, so it is not worth a refusal: sixty lives of a batch, not three."""
    known = b.batch_ended(refuse(Belief(), 100.0, 90_000, 60_000), 110.0, hold_s=10.0, tokens=1, overlap=1.0)
    busy = known
    for _ in range(30):
        busy = b.looked(busy, served=True)

    assert b.allowance(idle(known), None, 131.0).limit == 75_000
    assert b.allowance(busy, None, 131.0).limit == 60_000
    assert b.allowance(busy, None, 100.0 + 601.0).limit == 75_000


def test_probes_that_prove_nothing_become_bolder_until_one_is_refused() -> None:
    """Where batches end all the time, what was offered is never all there when the provider looks."""
    known = idle(b.batch_ended(refuse(Belief(), 100.0, 90_000, 60_000), 110.0, hold_s=10.0, tokens=1, overlap=1.0))

    let_in = b.accepted(known, 135.0, fill=75_000, proven=55_000, offered_at=131.0, probing=True)
    assert let_in.known == 60_000
    assert b.allowance(let_in, None, 136.0).limit == 112_500
    assert refuse(let_in, 140.0, 112_500, 60_000, probing=True).reach == b.PROBE_BEYOND


def test_a_probe_that_goes_through_under_a_known_number_lets_the_number_count_again() -> None:
    """Whoever held the rest unseen has gone: no climbing step by step."""
    shared = Belief(known=60_000, known_source="header", soft=24_000, floor=24_000, ceiling=30_000)

    assert accept(shared, 31_000, 50.0, probing=True).soft is None
    assert accept(shared, 23_900, 50.0).soft == 24_000


def test_a_settled_limit_rises_by_proof_alone() -> None:
    """A fill that was let in has in it what had ended and was not yet seen to."""
    settled = Belief(known=60_000, known_source="header", soft=24_000, floor=24_000, ceiling=30_000)

    kept = b.accepted(settled, 50.0, fill=25_700, proven=20_000, offered_at=45.0, probing=False)
    assert (kept.soft, kept.floor) == (24_000, 24_000)


def test_an_accepted_probe_forgets_the_old_number_and_grows() -> None:
    """The limit was raised: what a refusal said before no longer holds."""
    known = refuse(Belief(), 100.0, 90_000, 60_000)

    grown = accept(known, 75_000, 200.0)
    assert grown.known is None
    assert b.allowance(grown, None, 201.0).limit == round(75_000 * b.GROWTH)


def test_a_reservation_covers_both_of_the_providers_counts() -> None:
    """By characters at create, by tokens while validating (F§4.1): the larger, times the margin, rounded up."""
    belief = Belief(text_factor=1.15, char_factor=1.4)

    assert belief.charge(1000, 100, 1.0) == 1150
    assert belief.charge(100, 1000, 1.0) == 1400
    assert belief.charge(100, 1000, 1.02) == 1428
    assert belief.charge(0, 0, 1.0) == 1


def test_usage_below_our_estimate_lowers_no_reservation() -> None:
    """What short requests used says nothing of a long one: 4,656 tokens were reserved for 4,922 (simulation, seed 404255)."""
    used = b.usage_seen(Belief(), counted=930, estimated=1_000)

    assert used.charge(4_922, 1_245, 1.0) == 4_922 and used.tokens_factor == 1.0
    assert b.usage_seen(used, counted=1_100, estimated=1_000).tokens_factor == pytest.approx(1.1)


def test_the_header_calibrates_characters_and_usage_calibrates_tokens() -> None:
    """Factors rise at once and fall slowly; what cannot be the same unit is not believed."""
    seen = b.header_seen(Belief(), 1.0, maximum=None, enqueued=1150, quarter_chars=1000)
    assert seen.chars_factor == pytest.approx(1.15)
    assert seen.tokens_factor == pytest.approx(1.15)

    used = b.usage_seen(seen, counted=12_000, estimated=10_000)
    assert used.tokens_factor == pytest.approx(1.2)
    assert 1.1 < b.usage_seen(used, counted=10_000, estimated=10_000).tokens_factor < 1.2
    assert b.usage_seen(used, counted=99_000, estimated=10_000) == used
    running_total = b.header_seen(Belief(), 1.0, maximum=None, enqueued=740_000, quarter_chars=1000)
    assert running_total.char_factor is None


def test_calibration_explains_a_refusal_just_below_the_known_limit() -> None:
    """Once we know that the provider counts 15 % more, the refusal at 98 % of the limit was no secret limit."""
    refused = refuse(accept(Belief(), 30_000, 0.0), 5.0, 59_000, 60_000)
    assert refused.soft is not None

    calibrated = b.usage_seen(refused, counted=11_500, estimated=10_000)
    assert calibrated.soft is None
    assert b.allowance(calibrated, None, 6.0).limit == 60_000


@given(st.integers(1, 10**10), st.integers(0, 10**10), st.floats(1.0, 1.5))
def test_beliefs_survive_their_row(known: int, floor: int, factor: float) -> None:
    """What is stored is what is read."""
    belief = Belief(known=known, floor=floor, text_factor=factor)

    assert b.load(b.dump(belief)) == belief
    assert b.load(None) == Belief()
    assert msgspec.json.decode(b.dump(belief))["known"] == known


def test_a_refused_probe_does_not_excuse_the_refusal_after_it() -> None:
    """Only a probe that was let in explains why less fits for a while; else the provider frees tokens late."""
    start = Belief(
        known=1_500, known_source="refusal", floor=1_300, pace=b.Pace(hold_s=4.0), released_at=1.0, reuse_proven=True
    )
    probed = b.refused(
        start, 100.0, offered_at=98.0, fill=2_700, others=1_700, limit=1_500, freed=0.0, returned=0, probing=True
    )
    after = b.refused(
        probed, 102.0, offered_at=100.1, fill=800, others=500, limit=1_500, freed=0.0, returned=1_000, probing=False
    )

    assert after.release_lag_s == 16.0
    assert after.lag_s(103.0) == 16.0


def test_a_lag_that_one_part_disproved_is_doubted_at_the_next_release() -> None:
    """Three parts try then, not a whole gateful: the one may have fitted beside what is still counted."""
    lagging = Belief(known=1_500, known_source="header", floor=1_300, release_lag_s=16.0, lag_until=100.0, released_at=1.0,
                     reuse_proven=True)  # fmt: skip
    after = b.accepted(lagging, 110.0, fill=300, proven=300, offered_at=105.0, probing=False)

    assert after.release_lag_s == 0.0
    assert after.cautious_parts(111.0, 3) == 3


def test_parts_offered_in_turns_do_not_excuse_each_other() -> None:
    """Each refusal comes after the next part was offered: what counts is whether it knew of the last evidence."""
    belief = refuse(Belief(), 10.0, 1_000, 5_000, offered_at=5.0)
    for at in (12.0, 14.0, 16.0, 18.0, 20.0, 22.0):
        belief = refuse(belief, at, 1_000, 5_000, offered_at=at - 4.0)

    assert belief.calm_until > 20.0


def test_a_floor_that_was_lost_and_reached_again_does_not_make_probes_frequent() -> None:
    """Only what exceeds the number that is known is news."""
    belief = refuse(Belief(), 10.0, 40_000, 30_000)
    for at in (100.0, 200.0, 300.0):
        belief = refuse(belief, at, 37_500, 30_000, probing=True)
    rare = belief.probe_backoff
    belief = msgspec.structs.replace(belief, floor=0)

    assert rare > 2.0
    assert accept(belief, 25_000, 301.0).probe_backoff == rare
    assert accept(belief, 31_000, 301.0).probe_backoff == 1.0


def test_a_refusal_of_requests_moves_the_limit_of_requests_and_nothing_about_tokens() -> None:
    """OpenAI's second dimension (F§3.1): its number is believed for a day, then the documented one is tried again."""
    before = accept(Belief(), 30_000, 0.0)
    after = b.requests_refused(before, 10.0, offered_at=5.0, fill=150, limit=60)

    assert before.requests_limit(10.0) == ENQUEUED_REQUESTS_MAX
    assert after.requests_limit(11.0) == 60
    assert b.allowance(after, None, 11.0) == b.allowance(before, None, 11.0)
    assert after.requests_limit(10.0 + b.REQUESTS_BELIEVED_S) == ENQUEUED_REQUESTS_MAX


def test_refusals_of_requests_below_the_number_leave_room_for_a_while_and_slow_down() -> None:
    """Others of the organisation hold what is not seen; a burst is one piece of evidence."""
    first = b.requests_refused(Belief(), 10.0, offered_at=5.0, fill=40, limit=1_000)
    burst = b.requests_refused(first, 11.0, offered_at=6.0, fill=40, limit=1_000)
    second = b.requests_refused(first, 20.0, offered_at=15.0, fill=20, limit=1_000)

    assert first.requests_limit(11.0) == 20 and not first.requests.calm_until > 10.0
    assert burst == first
    assert second.requests_limit(21.0) == 10 and second.requests.calm_until > 20.0
    assert second.requests_limit(1_000.0) == ENQUEUED_REQUESTS_MAX
    assert accept(second, 30_000, 30.0).requests.in_a_row == 0
    assert b.load(b.dump(second)) == second
