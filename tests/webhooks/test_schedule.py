"""When the next try is: a pure function of the tries, the time and the dice."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhooks.deliver import LONGEST_S, WITHIN_S, next_after
from jobs.webhooks.post import retry_after_s

DICE = st.floats(0, 1)


def schedule(dice: list[float], asked: float | None = None) -> list[float]:
    """The seconds after the news at which a receiver that never answers is tried, if a try takes no time."""
    at = [0.0]
    while (pause := next_after(len(at), at[-1], dice[len(at) % len(dice)], asked)) is not None:
        at.append(at[-1] + pause)
    return at


def test_tries_are_soon_at_first_and_hours_apart_in_the_end() -> None:
    at = [round(second) for second in schedule([0.5])]
    assert at[:5] == [0, 5, 20, 65, 200]
    assert at[-1] - at[-2] == LONGEST_S
    assert WITHIN_S - LONGEST_S < at[-1] <= WITHIN_S


@given(st.lists(DICE, min_size=1, max_size=30))
def test_all_tries_are_within_a_day_and_each_waits_about_as_long_as_it_should(dice: list[float]) -> None:
    at = schedule(dice)
    assert at[-1] <= WITHIN_S
    assert 13 <= len(at) <= 20
    for n in range(len(at) - 1):
        usual = min(5 * 3**n, LONGEST_S)
        assert 0.799 * usual <= at[n + 1] - at[n] <= 1.201 * usual


def test_two_that_failed_together_are_not_tried_together() -> None:
    assert next_after(1, 0, 0.1) != next_after(1, 0, 0.9)


@given(DICE, st.floats(0, 1e9))
def test_what_the_receiver_asks_for_is_honoured_within_bounds(dice: float, asked: float) -> None:
    pause = next_after(1, 0, dice, asked)
    assert pause is not None
    assert pause >= min(asked, LONGEST_S)
    assert pause <= max(6.0 + 1e-6, LONGEST_S)


def test_it_may_not_ask_for_less_nor_past_the_day() -> None:
    assert next_after(5, 0, 0.5, 1) == next_after(5, 0, 0.5)
    assert next_after(1, WITHIN_S - 10, 0.5, 60) is None


def test_the_first_try_that_comes_days_late_is_not_followed_by_others() -> None:
    assert next_after(1, 3 * WITHIN_S, 0.5) is None


NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Wed, 25 Nov 2026 12:01:30 GMT", 90),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0),
        ("Wed, 25 Nov 2026 12:01:30 -0000", 90),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("9" * 40, None),
        ("Wed, 99 Nov 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds
