"""The timer wheel against a plain list of deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcpsocket._native import ffi, lib

NEVER = 2**64 - 1

#: Distances (ms) of every magnitude, so that each level of the wheel is met, and the horizon beyond it.
DISTANCES = st.one_of(
    st.integers(0, 70), st.integers(0, 5000), st.integers(0, 64**3 * 2), st.integers(0, 64**5), st.integers(0, 64**6)
)


class Wheel:
    """A wheel and its timers, beside a dict that says what they should do."""

    def __init__(self, now: int, timers: int = 20) -> None:
        self.now = now
        self.wheel = ffi.new("struct wheel *")
        self.timers = ffi.new("struct timer[]", timers)
        self.deadlines: dict[int, int] = {}
        lib.wheel_init(self.wheel, now)

    def arm(self, index: int, deadline: int) -> None:
        lib.wheel_arm(self.wheel, self.timers + index, deadline)
        self.deadlines[index] = deadline

    def disarm(self, index: int) -> None:
        lib.wheel_disarm(self.wheel, self.timers + index)
        self.deadlines.pop(index, None)

    def advance(self, now: int) -> set[int]:
        """Moves on to `now`; the timers that were due."""
        self.now = now
        due = set()
        while (timer := lib.wheel_expire(self.wheel, now)) != ffi.NULL:
            index = timer - self.timers
            assert not lib.timer_armed(timer)
            assert index not in due
            due.add(index)
        return due


@given(
    start=st.one_of(st.integers(0, 10**7), st.sampled_from([64**k - 1 for k in range(1, 7)])),
    steps=st.lists(
        st.tuples(st.sampled_from(["arm", "disarm", "advance", "sleep"]), st.integers(0, 19), DISTANCES), max_size=60
    ),
)
@settings(max_examples=300, deadline=None)
def test_every_timer_is_due_at_its_deadline_and_not_before(start: int, steps: list[tuple[str, int, int]]) -> None:
    wheel = Wheel(start)
    for action, index, distance in steps:
        if action == "arm":
            wheel.arm(index, wheel.now + distance)
        elif action == "disarm":
            wheel.disarm(index)
        else:
            wanted = wheel.now + distance
            if action == "sleep":  # as the engine does: until the wheel asks for it
                wanted = lib.wheel_next(wheel.wheel)
                if wanted == NEVER:
                    continue
            expected = {i for i, deadline in wheel.deadlines.items() if deadline <= wanted}
            assert wheel.advance(wanted) == expected
            for i in expected:
                del wheel.deadlines[i]
        earliest = min(wheel.deadlines.values(), default=NEVER)
        assert lib.wheel_next(wheel.wheel) <= max(earliest, wheel.now) or earliest == NEVER
        assert (lib.wheel_next(wheel.wheel) == NEVER) == (not wheel.deadlines)
        assert {i for i in range(20) if lib.timer_armed(wheel.timers + i)} == set(wheel.deadlines)


@pytest.mark.parametrize("distance", [1, 63, 64, 65, 4095, 4096, 64**4, 64**5 + 3, 64**6 + 1])
def test_sleeping_until_it_asks_reaches_a_timer_in_few_wakings(distance: int) -> None:
    wheel = Wheel(12_345)
    wheel.arm(0, wheel.now + distance)
    wakings = 0
    while wheel.deadlines:
        wakings += 1
        due = wheel.advance(lib.wheel_next(wheel.wheel))
        if due:
            assert due == {0}
            assert wheel.now == 12_345 + distance
            break
    assert wakings <= 5 + distance // 64**5 + 1


def test_a_deadline_in_the_past_is_due_at_once() -> None:
    wheel = Wheel(1000)
    wheel.arm(3, 5)
    assert lib.wheel_next(wheel.wheel) == 1000
    assert wheel.advance(1000) == {3}
