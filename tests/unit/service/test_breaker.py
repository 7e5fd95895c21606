"""The breaker, against any order of batches and times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.breaker import Breaker


def opened(breaker: Breaker, now: float = 0.0) -> Breaker:
    for _ in range(3):
        breaker.failed(now)
    return breaker


@given(st.lists(st.booleans()))
def test_it_opens_at_the_third_failure_in_a_row_and_not_before(results: list[bool]) -> None:
    breaker = Breaker()
    for count, success in enumerate(results, 1):
        if success:
            breaker.succeeded()
        else:
            breaker.failed(0.0)
        if not any(results[max(0, count - 3) : count]) and count >= 3:
            assert breaker.state == "open"
            break
        assert breaker.state == "closed"


def test_pauses_double_up_to_the_longest_and_a_success_begins_anew() -> None:
    breaker, now = opened(Breaker()), 0.0
    for pause in (0.5, 1, 2, 4, 8, 8, 8):
        assert not breaker.allows(now + pause - 0.001)
        now += pause
        assert breaker.allows(now)
        breaker.began(now)
        assert not breaker.allows(now + 100), "one batch tries it"
        breaker.failed(now)
    breaker.began(now + 8)
    breaker.succeeded()
    assert (breaker.state, breaker.allows(now)) == ("closed", True)
    assert not opened(breaker, now).allows(now + 0.499)
    assert breaker.allows(now + 0.5)


def test_a_trial_that_tells_nothing_leaves_the_next_to_be_the_trial() -> None:
    breaker = opened(Breaker())
    breaker.began(0.5)
    breaker.undecided()
    assert breaker.allows(0.5)
    breaker.began(0.5)
    assert breaker.state == "half-open"


class Machine(RuleBasedStateMachine):
    """Batches begin when they are allowed and end in any order, as they would at an endpoint that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.running = 0

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def a_batch_begins(self) -> None:
        was = self.breaker.state
        self.breaker.began(self.now)
        self.running += 1
        assert self.breaker.state == ("closed" if was == "closed" else "half-open")

    @precondition(lambda self: self.running)
    @rule()
    def one_succeeds(self) -> None:
        was = self.breaker.state
        self.running -= 1
        self.breaker.succeeded()
        assert self.breaker.state == ("open" if was == "open" else "closed")

    @precondition(lambda self: self.running)
    @rule()
    def one_fails(self) -> None:
        was = self.breaker.state
        allowed = self.breaker.allows(self.now)
        self.running -= 1
        self.breaker.failed(self.now)
        if was == "half-open":
            assert self.breaker.state == "open"
            assert not self.breaker.allows(self.now + 0.99), "the second pause is a second at least"
        if was == "open":
            assert self.breaker.allows(self.now) == allowed, "an old batch's failure changes nothing"

    @precondition(lambda self: self.running)
    @rule()
    def one_tells_nothing(self) -> None:
        was = self.breaker.state
        self.running -= 1
        self.breaker.undecided()
        assert self.breaker.state == ("open" if was == "half-open" else was)

    @invariant()
    def it_is_never_left_alone_for_ever(self) -> None:
        if self.breaker.state == "half-open":
            assert self.running, "somebody will tell how the trial ended"
        else:
            assert self.breaker.allows(self.now + 8)


TestMachine = Machine.TestCase
