"""Time-outs by one timer, with real signals: who is interrupted, who is not, and what is let go meanwhile."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from miq.errors import MessageTimeout
from miq.queue import alarm as alarm_module
from miq.queue.alarm import Alarm


def never() -> bool:
    raise AssertionError("nothing was held for too long")


@contextmanager
def ringing(hold: float = math.inf, let_go: Callable[[], bool] = never) -> Iterator[Alarm]:
    alarm = Alarm()
    with alarm.on(hold, let_go):
        yield alarm


def note(told: list[float]) -> Callable[[], bool]:
    """To let go is to write down when."""

    def let_go() -> bool:
        told.append(time.monotonic())
        return True

    return let_go


def work(seconds: float) -> None:
    """Python code that can be interrupted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


def test_a_message_that_runs_past_its_time_is_interrupted() -> None:
    with ringing() as alarm:
        began = time.monotonic()
        deadline = alarm.start(0.05)
        with pytest.raises(MessageTimeout, match=r"timed out after 0\.05 seconds"):
            work(5)
        assert abs(deadline - began - 0.05) < 0.01
        assert 0.05 <= time.monotonic() - began < 1


def test_a_long_sleep_is_interrupted() -> None:
    with ringing() as alarm:
        alarm.start(0.05)
        with pytest.raises(MessageTimeout):
            time.sleep(5)


def test_one_that_ended_in_time_is_not_and_neither_is_what_comes_after_it() -> None:
    with ringing() as alarm:
        alarm.start(0.05)
        alarm.stop()
        work(0.1)
        alarm.start(60)
        work(0.1)
        alarm.stop()


def test_each_message_has_its_own_time_though_the_timer_was_set_for_another() -> None:
    with ringing() as alarm:
        alarm.start(0.06)
        alarm.stop()
        alarm.start(0.2)  # the timer rings at 0.06 for the first, which is over
        began = time.monotonic()
        with pytest.raises(MessageTimeout, match=r"after 0\.2 seconds"):
            work(5)
        assert time.monotonic() - began >= 0.2
        alarm.stop()
        alarm.start(60)
        alarm.stop()
        alarm.start(0.05)  # and is set anew for a shorter one
        with pytest.raises(MessageTimeout, match=r"after 0\.05 seconds"):
            work(5)


def test_the_timer_is_not_set_for_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    real = signal.setitimer

    def counted(which: int, seconds: float) -> tuple[float, float]:
        calls.append(seconds)
        return real(which, seconds)

    monkeypatch.setattr(signal, "setitimer", counted)
    with ringing() as alarm:
        for _ in range(1000):
            alarm.start(600)
            alarm.stop()
    assert len(calls) == 2 and calls[1] == 0, "once at the first, and taken down at the end"


def test_who_swallows_the_time_out_gets_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_module, "AGAIN", 0.05)
    with ringing() as alarm:
        alarm.start(0.05)
        for _ in range(3):
            with pytest.raises(MessageTimeout):
                work(5)
        alarm.stop()
        work(0.1)


def test_what_is_held_too_long_is_let_go_once_while_the_message_runs_on() -> None:
    told: list[float] = []
    with ringing(0.05, note(told)) as alarm:
        began = time.monotonic()
        alarm.start(600)
        work(0.3)
        alarm.stop()
        assert len(told) == 1 and 0.05 <= told[0] - began < 0.3


def test_it_is_let_go_from_within_the_next_message_when_none_runs_at_the_time() -> None:
    told: list[float] = []
    with ringing(0.05, note(told)) as alarm:
        alarm.start(600)
        alarm.stop()
        work(0.1)
        assert told == []
        alarm.start(600)
        work(0.05)
        alarm.stop()
    assert len(told) == 1


def test_letting_go_is_tried_again_when_it_did_not_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_module, "AGAIN", 0.05)
    answers = [False, False, True]
    with ringing(0.02, lambda: answers.pop(0)) as alarm:
        alarm.start(600)
        work(0.4)
        alarm.stop()
    assert answers == []


def test_a_message_that_is_overdue_when_it_is_let_go_is_ended_as_well() -> None:
    told: list[float] = []
    with ringing(0.05, note(told)) as alarm:
        alarm.start(0.05)
        with pytest.raises(MessageTimeout):
            work(5)
    assert len(told) == 1


def test_afterwards_the_handler_of_before_is_back_and_no_timer_runs() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with ringing() as alarm:
        alarm.start(600)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        assert signal.getsignal(signal.SIGALRM) != before
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert not alarm.is_on


def test_it_can_be_used_again_after_an_error() -> None:
    alarm = Alarm()
    with pytest.raises(MessageTimeout), alarm.on(math.inf, never):
        alarm.start(0.02)
        work(5)
    with alarm.on(math.inf, never):
        alarm.start(600)
        work(0.05)
        alarm.stop()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("seconds", [2**31 - 1, 1e-9])
def test_times_of_any_length(seconds: float) -> None:
    with ringing() as alarm:
        if seconds > 1:
            alarm.start(seconds)
            work(0.02)
        else:
            with pytest.raises(MessageTimeout):
                alarm.start(seconds)
                work(1)
