"""When to look next: the pace follows the expected end."""

from sluicegate.core.watch import Pending, next_look_at


def look(*pending: Pending, last: float = 100.0, hold: float | None = None, validating: float | None = None) -> float:
    return next_look_at(pending, last_look=last, poll_s=60.0, poll_max_s=600.0, hold_s=hold, validating_s=validating)


def test_looks_are_never_closer_than_the_poll_setting() -> None:
    """Whatever is expected, the provider is asked once per poll at most (F§2.2)."""
    assert look(Pending(since=0.0, answer_awaited=False), hold=50.0) == 160.0


def test_nothing_under_way_means_the_slowest_pace() -> None:
    """An idle deployment costs a look every poll_max."""
    assert look() == 700.0


def test_a_far_end_is_approached_in_shortening_steps() -> None:
    """A batch that lives an hour is not asked for every minute, and still seen soon after its end."""
    batch = Pending(since=100.0, answer_awaited=False)
    last, looks = 100.0, 0
    while last < 100.0 + 2_000.0:
        last = next_look_at(
            [batch], last_look=last, poll_s=60.0, poll_max_s=10_000.0, hold_s=2_000.0, validating_s=None
        )
        looks += 1

    assert looks <= 6
    assert last <= 2_100.0 + 60.0


def test_an_awaited_answer_is_looked_for_when_validation_should_be_over() -> None:
    """A part beyond the proven fill tells the limit as soon as it has left validating."""
    assert look(Pending(since=100.0, answer_awaited=True), hold=5_000.0, validating=120.0) == 220.0


def test_asking_again_later_gives_the_same_answer() -> None:
    """The time is reckoned from the last look, so it cannot recede while one waits for it."""
    batch = Pending(since=40.0, answer_awaited=False)

    assert look(batch) == look(batch) == 160.0


def test_a_batch_that_answers_faster_than_others_lived_is_looked_for_by_its_own_counts() -> None:
    """Found by a makespan: the last batch had the service for itself, and its end was seen three looks late."""
    early = Pending(since=0.0, answer_awaited=False, served_since=50.0, share=0.5)
    late = Pending(since=0.0, answer_awaited=False, served_since=50.0, share=0.1)

    assert look(early, last=100.0, hold=5_000.0) == 160.0
    assert look(late, last=100.0, hold=5_000.0) == 100.0 + 0.75 * 450.0


def test_near_an_expected_end_each_poll_looks() -> None:
    """What has ended unseen holds room up: a few looks more cost less."""
    assert look(Pending(since=0.0, answer_awaited=False), last=100.0, hold=250.0) == 160.0
