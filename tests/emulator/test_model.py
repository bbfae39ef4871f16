"""The provider's books: what counts, from when, until when; and the life of a batch, to the second."""

import math
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.emulator.batch import Refused
from sluicegate.emulator.config import Change, Deployment
from sluicegate.emulator.faults import Fault
from tests.emulator.support import NOON, Bench


def test_tokens_count_by_characters_at_create_and_by_tokens_once_validated() -> None:
    """Two counts (F§4.1)."""
    bench = Bench()
    bench.create(0, [100], chars=170)

    assert bench.at(9.9).held("gpt-4.1") == 170
    assert bench.at(10).held("gpt-4.1") == 100


def test_a_batch_whose_input_is_still_counted_stays_in_validating_until_it_is() -> None:
    """Counted late it is still counted: by characters until then, by tokens after, and refused if it does not fit."""
    bench = Bench()
    fits, does_not = (bench.create(0, [0, 0], chars=170) for _ in range(2))
    for batch in (fits, does_not):
        batch.facts.counted = False
    assert bench.at(60).held("gpt-4.1") == 340
    assert fits.status == does_not.status == "validating"

    for batch, tokens in ((fits, [500, 500]), (does_not, [9_000, 1])):
        bench.model.counted(NOON + 61, batch.facts, array("I", tokens), array("Q", [batch.number, 0]))

    assert (fits.status, does_not.status, does_not.errors[0]["code"]) == (
        "in_progress",
        "failed",
        "token_limit_exceeded",
    )
    assert bench.at(61).held("gpt-4.1") == 1_000
    assert bench.model.report(NOON + 61)["offered_max_tokens"] == 170 + 9_001
    assert bench.at(91).batches[fits.id].status == "completed"


def test_a_batch_goes_through_its_statuses_at_the_seconds_that_the_account_says() -> None:
    """Validating 10 s, start 10 s, 1,000 tokens at 100 a second, finalizing 10 s."""
    bench = Bench()
    batch = bench.create(0, [500, 500])
    seen = [bench.at(at) and batch.status for at in (9.9, 10, 29.9, 30, 39.9, 40)]

    assert seen == ["validating", "in_progress", "in_progress", "finalizing", "finalizing", "completed"]
    assert {name: at - NOON for name, at in batch.times.items()} == {
        "in_progress_at": 10, "served_from": 20, "finalizing_at": 30, "completed_at": 40
    }  # fmt: skip


def test_the_whole_batch_is_held_until_it_has_ended() -> None:
    """Never line by line (F§4.1): half done, finalizing and cancelling hold everything."""
    bench = Bench()
    batch = bench.create(0, [500, 500])

    assert bench.at(25).held("gpt-4.1") == 1_000
    assert batch.executed == 1
    assert bench.at(39.9).held("gpt-4.1") == 1_000
    assert bench.at(40).held("gpt-4.1") == 0


@pytest.mark.parametrize(("at", "status", "executed"), [(5, "validating", 0), (15, "in_progress", 0), (26, "in_progress", 1),
                                                       (35, "finalizing", 2)])  # fmt: skip
def test_a_cancel_in_every_state_keeps_what_was_done_and_holds_until_cancelled(
    at: float, status: str, executed: int
) -> None:
    """Partial output; ``cancelling`` still holds (F§2.3)."""
    bench = Bench()
    batch = bench.create(0, [500, 500])
    bench.at(at)
    assert batch.status == status
    bench.model.cancel(NOON + at, batch.id)

    assert batch.status == "cancelling"
    assert bench.at(at + 9.9).held("gpt-4.1") > 0
    assert bench.at(at + 10).held("gpt-4.1") == 0
    assert (batch.status, batch.executed) == ("cancelled", executed)


def test_a_cancel_may_take_its_ten_minutes() -> None:
    """Held until then (F§2.3)."""
    bench = Bench(cancelling_s=600.0)
    batch = bench.create(0, [100])
    bench.model.cancel(NOON + 5, batch.id)

    assert bench.at(604.9).held("gpt-4.1") == 100
    assert bench.at(605).held("gpt-4.1") == 0


def test_a_batch_that_has_ended_cannot_be_cancelled_but_a_cancelled_one_can() -> None:
    """409, and the cancel of a cancelled batch is accepted (F§5.3)."""
    bench = Bench()
    done, dropped = bench.create(0, [1]), bench.create(0, [1], first=1)
    bench.model.cancel(NOON + 1, dropped.id)
    bench.at(100)

    with pytest.raises(Refused, match="Cannot cancel a batch with status 'completed'"):
        bench.model.cancel(NOON + 100, done.id)
    assert bench.model.cancel(NOON + 100, dropped.id).status == "cancelled"


def test_a_late_region_takes_the_create_and_fails_the_batch_after_validating() -> None:
    """What was refused never held anything, and nothing lags behind it."""
    bench = Bench(release_lag_s=100.0)
    first, second = bench.create(0, [6_000]), bench.create(1, [6_000], first=1)
    bench.at(11)

    assert (first.status, second.status) == ("in_progress", "failed")
    assert second.errors[0]["code"] == "token_limit_exceeded"
    assert "configured limit of 10K for the deployment 'gpt-4.1'" in second.errors[0]["message"]
    assert bench.model.held("gpt-4.1") == 6_000
    assert bench.model.refusals == {"at_create": 0, "late": 1}


def test_a_region_that_fails_fast_refuses_at_create_by_characters() -> None:
    """Eastus, Sweden Central … (F§5.2); no batch is made, the books know."""
    bench = Bench(region="swedencentral")
    bench.create(0, [6_000])
    with pytest.raises(Refused) as refused:
        bench.create(1, [10], chars=4_001, first=1)

    assert (refused.value.status, refused.value.code) == (400, "token_limit_exceeded")
    assert len(bench.model.batches) == 1
    assert bench.model.offered_max == pytest.approx(1.0001)
    assert bench.create(2, [4_000], first=1).status == "validating"


def test_the_limit_is_exact_to_the_token() -> None:
    """Exactly the limit fits, one more does not."""
    bench = Bench()
    fits, over = bench.create(0, [4_000, 6_000]), bench.create(0.5, [1], first=2)
    bench.at(11)

    assert (fits.status, over.status) == ("in_progress", "failed")
    assert bench.model.held_max_ratio == pytest.approx(1.0001)


def test_deployments_do_not_count_against_each_other() -> None:
    """Each has its own limit, and its own books."""
    bench = Bench(deployments=(Deployment("a", 1_000), Deployment("b", 2_000)))
    bench.create(0, [1_000], deployment="a")
    bench.create(0, [1_500], deployment="b", first=1)
    report = bench.at(11).report(NOON + 11)

    assert [bench.model.held(name) for name in "ab"] == [1_000, 1_500]
    assert report["deployments"]["a"]["held_max_ratio"] == 1.0
    assert report["deployments"]["b"]["held_max_ratio"] == 0.75
    assert report["refusals"]["late"] == 0


def test_released_late_or_never_counts_on() -> None:
    """The account's lag, and a fault's for one batch."""
    bench = Bench(
        release_lag_s=5.0,
        faults=(
            Fault(on="batch", kind="release_late", nth=2, seconds=60),
            Fault(on="batch", kind="release_never", nth=3),
        ),
    )
    for i, tokens in enumerate((1, 10, 100)):
        bench.create(0, [tokens], first=i)
    held = {at: bench.at(at).held("gpt-4.1") for at in (35, 36, 90, 91, 10_000_000)}

    # They end at 30.03 s, 30.21 s and 31.11 s.
    assert held == {35: 111, 36: 110, 90: 110, 91: 100, 10_000_000: 100}


def test_work_is_shared_fifo_or_by_slots() -> None:
    """Three batches of 1,000 tokens at 100 a second, by discipline: when they stop being served."""
    ends = {}
    for discipline in ("shared", "fifo", "slots"):
        bench = Bench(discipline=discipline, slots=2)
        batches = [bench.create(0, [1_000], first=i) for i in range(3)]
        bench.at(1_000)
        ends[discipline] = [round(batch.times["finalizing_at"] - NOON, 3) for batch in batches]

    assert ends == {"shared": [50, 50, 50], "fifo": [30, 40, 50], "slots": [40, 40, 60]}


def test_day_and_night_change_the_rate_at_the_hour() -> None:
    """At full rate until 13:00, then at a tenth."""
    bench = Bench(rhythm=((0.0, 1.0), (13.0, 0.1)))
    batch = bench.create(3_600 - 30, [2_000])
    bench.at(10_000)

    # Served from ten seconds before one o'clock: 1,000 tokens by then, the other 1,000 at ten a second.
    assert batch.times["finalizing_at"] - NOON == pytest.approx(3_600 + 100)


def test_a_dead_deployment_takes_work_and_does_none() -> None:
    """Accepted, in progress for ever, held; it can be cancelled."""
    bench = Bench(deployments=(Deployment("gpt-4.1", 10_000, dead=True),))
    batch = bench.create(0, [10])

    assert bench.at(1_000_000).held("gpt-4.1") == 10
    assert (batch.status, batch.executed) == ("in_progress", 0)
    bench.model.cancel(NOON + 1_000_000, batch.id)
    assert bench.at(1_000_011).held("gpt-4.1") == 0


def test_tailed_delays_keep_their_median_and_follow_the_seed() -> None:
    """Log-normal and Pareto: half of a hundred batches are below the median, some far above; same seed, same times."""
    for delays in ("lognormal", "pareto"):
        runs = []
        for _ in range(2):
            bench = Bench(delays=delays, spread=1.2, rate=0.0, start_s=0.0, finalizing_s=0.0, limit=None, seed=7)
            batches = [bench.create(0, [1], first=i) for i in range(100)]
            bench.at(100_000)
            runs.append([batch.times["in_progress_at"] - NOON for batch in batches])
        assert runs[0] == runs[1]
        assert 35 <= sum(waited < 10 for waited in runs[0]) <= 65
        assert max(runs[0]) > 50


def test_openai_expires_after_a_day_with_what_was_done_and_azure_never_does() -> None:
    """F§2.3."""
    openai, azure = Bench(dialect="openai", rate=0.01), Bench(rate=0.01)
    batches = [bench.create(0, [500, 500]) for bench in (openai, azure)]
    for bench in (openai, azure):
        bench.at(86_400 + 10)

    assert [batch.status for batch in batches] == ["expired", "in_progress"]
    assert batches[0].executed == 1


def test_a_request_executed_after_it_was_answered_is_counted() -> None:
    """The books' own check of twice-executed work."""
    bench = Bench()
    bench.create(0, [10, 10])
    bench.at(100)
    bench.create(100, [10, 10], first=1)
    report = bench.at(200).report(NOON + 200)

    assert (report["executed_total"], report["executed_again"]) == (4, 1)


def test_a_line_that_failed_may_be_executed_again() -> None:
    """A fault on a line hits a request once, and the second execution is no repetition of an answer."""
    bench = Bench(faults=(Fault(on="line", kind="500", nth=2),))
    first = bench.create(0, [10, 10, 10])
    bench.at(100)
    again = bench.create(100, [10], first=1)
    bench.at(200)

    assert (first.fates, first.failed) == ({1: "500"}, 1)
    assert (again.fates, bench.model.executed_again) == ({}, 0)


def test_somebody_elses_load_follows_the_timetable_and_the_clock_that_is_told() -> None:
    """Listed and not listed; both come and go at their seconds, whatever the steps of the clock."""
    for steps in ([0.0, 19.9, 20.0, 49.9, 50.0], [0.0, 20.0, 50.0]):
        bench = Bench(
            timetable=(Change(at_s=20, tokens=3_000, for_s=30), Change(at_s=20, tokens=500, for_s=30, listed=False)),
        )
        bench.create(0, [1])
        held = {at: bench.at(at).held("gpt-4.1") for at in steps}

        assert (held[20.0], held[50.0]) == (3_501, 0)
        assert held.get(19.9, 1) == 1
        assert held.get(49.9, 3_500) == 3_500
        assert [batch.status for batch in bench.model.new_foreign] == ["completed"]


def test_the_limit_and_the_rate_change_by_the_timetable() -> None:
    """From the second on at which it says so, for what is validated from then."""
    bench = Bench(timetable=(Change(at_s=20, limit=500), Change(at_s=30, rate=1_000.0)))
    bench.create(0, [1])
    late = bench.create(15, [600], first=1)
    fits = bench.create(20, [400], first=2)
    bench.at(100)

    assert (late.status, fits.status) == ("failed", "completed")
    assert fits.times["finalizing_at"] - fits.times["served_from"] == pytest.approx(0.4)


def test_openai_takes_two_thousand_creates_in_an_hour() -> None:
    """F§3.1; the refusal says when the next will be taken."""
    bench = Bench(dialect="openai", limit=None, creates_per_hour=2)
    bench.create(0, [1])
    bench.create(60, [1], first=1)
    with pytest.raises(Refused) as refused:
        bench.create(600, [1], first=2)

    assert (refused.value.status, refused.value.retry_after_s) == (429, 3_000)
    assert bench.create(3_600, [1], first=2).number == 3


def test_a_deployment_of_a_type_that_is_not_for_batches_fails_the_batch() -> None:
    """``invalid_request`` (F§5.2)."""
    bench = Bench(deployments=(Deployment("gpt-4.1", type="GlobalStandard"),))
    batch = bench.create(0, [1])
    bench.at(10)

    assert (batch.status, batch.errors[0]["code"]) == ("failed", "invalid_request")


def test_a_models_limit_is_that_of_the_longest_name_it_begins_with() -> None:
    """``model_limits`` of the tiers."""
    model = Bench(model_limits=(("gpt-4.1", 90), ("gpt-4.1-mini", 2_000))).model

    assert [model.deployments.limit(name) for name in ("gpt-4.1", "gpt-4.1-mini-2025", "o3")] == [90, 2_000, 10_000]


def test_a_named_deployment_without_a_limit_has_the_accounts() -> None:
    """``--limit 30K --deployment NAME`` had none at all."""
    named = (Deployment("mine"), Deployment("other", 7), Deployment("mini", None, "gpt-4.1-mini"))
    model = Bench(limit=30_000, deployments=named, model_limits=(("gpt-4.1-mini", 2_000),)).model

    assert [model.deployments.limit(name) for name in ("mine", "other", "mini")] == [30_000, 7, 2_000]
    assert model.deployments.names == ["mine", "other", "mini"]


def test_a_gated_batch_ends_when_its_results_are_written_and_not_before() -> None:
    """So that counts are known when the end is seen."""
    bench = Bench()
    batch = bench.create(0, [100, 100], gated=True)

    assert bench.at(1_000).waiting_for_results() == [batch]
    bench.model.open_gate(NOON + 1_000, batch.id, failed=1, output_tokens=42)
    assert (batch.status, batch.failed, batch.output_tokens) == ("completed", 1, 42)
    assert batch.times["completed_at"] == NOON + 1_000


@given(
    st.lists(st.tuples(st.floats(0, 300), st.lists(st.integers(1, 3_000), min_size=1, max_size=5)), max_size=12),
    st.lists(st.floats(0, 600), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_how_often_the_clock_is_read_changes_nothing(
    creates: list[tuple[float, list[int]]], looks: list[float]
) -> None:
    """The model is a function of its calls: looks in between leave every status, time and book as they were."""
    ends = []
    for steps in ([], looks):
        bench = Bench(validating_s=7.0, start_s=3.0)
        calls = sorted([(at, 0, tokens) for at, tokens in creates] + [(at, 1, []) for at in steps], key=lambda c: c[:2])
        for i, (at, kind, tokens) in enumerate(calls):
            if kind:
                bench.at(at)
            else:
                bench.create(at, tokens, first=i * 10)
        bench.at(5_000)
        ends.append([
            (batch.tokens, batch.status, [round(at, 3) for at in batch.times.values()])
            for batch in bench.model.batches.values()
        ])  # fmt: skip
        ends[-1].append((bench.model.held_max, "", [round(bench.model.held_max_ratio, 9)]))

    assert ends[0] == ends[1]


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(1, 12_000)), max_size=15))
@settings(max_examples=60, deadline=None)
def test_what_runs_never_exceeds_the_limit(creates: list[tuple[float, int]]) -> None:
    """Whatever is offered: the sum of validated batches stays within it, and at the end nothing is held."""
    bench = Bench()
    for i, (at, tokens) in enumerate(sorted(creates)):
        bench.create(at, [tokens], first=i)
        running = sum(b.charge for b in bench.model.batches.values() if b.status in ("in_progress", "finalizing"))
        assert running <= 10_000
    end = 200 + 30 + sum(tokens for _, tokens in creates) / 100 + 30

    assert bench.at(end).held("gpt-4.1") == 0
    assert math.isclose(sum(b.served for b in bench.model.batches.values() if b.status == "completed"),
                        sum(b.tokens for b in bench.model.batches.values() if b.status == "completed"), abs_tol=1)  # fmt: skip
