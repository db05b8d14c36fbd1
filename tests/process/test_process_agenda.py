"""Timers, crons and file monitors of uWSGI's signals, with the clock given: nothing here waits."""

import datetime
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelet.process.agenda import NEVER, Agenda, Timer, due, looks, registered


def minute(number: int) -> datetime.datetime:
    return datetime.datetime(2026, 3, 2, 5, number, 30)  # a Monday


# -- timers ---------------------------------------------------------------------------------------------------------


def test_a_timer_is_due_after_its_seconds_and_then_every_so_many():
    timers = registered((), 3, 5.0, 0, 100.0)
    assert due(timers, 104.9)[1] == ()
    timers, signals = due(timers, 105.0)
    assert signals == (3,)
    assert due(timers, 109.9)[1] == ()
    assert due(timers, 110.0)[1] == (3,)


def test_a_timer_that_was_missed_fires_once_and_keeps_its_beat():
    timers, signals = due(registered((), 3, 5.0, 0, 100.0), 163.0)
    assert signals == (3,)
    assert timers[0].next_at == 165.0


def test_a_timer_with_iterations_fires_so_often_and_no_more():
    timers = registered((), 3, 1.0, 2, 0.0)
    fired = []
    for now in range(10):
        timers, signals = due(timers, float(now))
        fired += [now] * len(signals)
    assert fired == [1, 2]
    assert timers[0].next_at == NEVER


def test_timers_that_are_due_together_fire_in_the_order_of_their_times():
    timers = registered(registered((), 1, 5.0, 0, 0.0), 2, 3.0, 0, 0.0)
    assert due(timers, 10.0)[1] == (2, 1)


def test_a_timer_that_is_registered_again_goes_on_as_it_was():
    timers = registered((), 3, 5.0, 0, 0.0)
    assert registered(timers, 3, 5.0, 0, 4.0) is timers


def test_a_finished_timer_stays_finished_when_the_next_worker_registers_it_and_begins_anew_when_a_view_does():
    timers, _ = due(registered((), 3, 1.0, 1, 0.0), 1.0)
    assert due(registered(timers, 3, 1.0, 1, 2.0), 100.0)[1] == ()
    timers = registered(timers, 3, 1.0, 1, 2.0, again=True)
    assert registered(timers, 3, 1.0, 1, 2.5, again=True) is timers
    assert due(timers, 3.0)[1] == (3,)


def test_a_timer_with_other_seconds_replaces_the_one_of_its_signal():
    timers = registered(registered((), 3, 5.0, 0, 0.0), 3, 7.0, 0, 4.0)
    assert timers == (Timer.begun(3, 7.0, 0, 4.0),)


SECONDS = st.floats(0.001, 1000.0)


@given(
    st.lists(st.tuples(st.integers(0, 255), SECONDS, st.integers(0, 5)), max_size=6),
    st.lists(st.floats(0.0, 500.0), max_size=60),
)
def test_at_random_times_no_timer_fires_early_twice_or_too_often(entries, steps):
    timers = ()
    for entry in entries:
        timers = registered(timers, *entry, 1000.0)
    counts = dict.fromkeys((timer.signal for timer in timers), 0)
    now = 1000.0
    for step in steps:
        now += step
        before = {timer.signal: timer for timer in timers}
        timers, signals = due(timers, now)
        assert len(set(signals)) == len(signals)
        for timer in timers:
            assert (timer.signal in signals) == (before[timer.signal].next_at <= now)
            assert timer.next_at > now
            counts[timer.signal] += timer.signal in signals
            assert counts[timer.signal] <= (now - 1000.0) / timer.seconds + 1e-6 * now
            if timer.iterations:
                assert counts[timer.signal] + timer.left == timer.iterations


@given(SECONDS, st.floats(0.0, 1e9))
def test_a_timer_that_is_asked_in_time_fires_in_every_period(seconds, began):
    timers = registered((), 1, seconds, 0, began)
    for beat in range(1, 20):
        at = timers[0].next_at
        timers, signals = due(timers, at)
        assert signals == (1,)
        assert at == pytest.approx(began + seconds * beat, abs=1e-6 * (1 + began))


# -- the agenda -----------------------------------------------------------------------------------------------------


def test_four_workers_that_register_the_same_make_one_of_each(tmp_path):
    agenda = Agenda()
    path = str(tmp_path / "watched")
    for now in range(4):
        agenda.register(
            [("signal", 1, "worker"), ("timer", 1, 5, 0), ("cron", 2, -1, -1, -1, -1, -1), ("file", 3, path)],
            float(now),
        )
    assert len(agenda.timers) == 1
    assert agenda.next_at == 5.0
    (tmp_path / "watched").write_text("1")
    assert agenda.seen_due(minute(0)) == [2, 3]


def test_a_signal_may_have_several_crons_and_monitors(tmp_path):
    agenda = Agenda()
    agenda.register([("cron", 2, 10, -1, -1, -1, -1), ("cron", 2, 20, -1, -1, -1, -1)], 0.0)
    agenda.register([("file", 2, str(tmp_path / "a")), ("file", 2, str(tmp_path / "b"))], 0.0)
    assert [agenda.seen_due(minute(number)) for number in (9, 10, 11, 20)] == [[], [2], [], [2]]
    (tmp_path / "b").write_text("")
    assert agenda.seen_due(minute(21)) == [2]


def test_a_minute_is_looked_at_once():
    agenda = Agenda()
    agenda.register([("cron", 7, -1, 5, -1, -1, 1)], 0.0)
    assert [agenda.seen_due(minute(number)) for number in (1, 1, 2, 2)] == [[7], [], [7], []]


def test_a_cron_follows_the_rules_of_the_option_cron():
    agenda = Agenda()
    agenda.register([("cron", 7, -15, -1, -1, -1, -1)], 0.0)
    assert [number for number in range(60) if agenda.seen_due(minute(number))] == [0, 15, 30, 45]


def test_a_new_generation_begins_anew_and_runs_no_minute_twice():
    old, new = Agenda(), Agenda()
    for agenda in (old, new):
        agenda.register([("timer", 1, 10.0, 2), ("cron", 2, -1, -1, -1, -1, -1)], 0.0)
    old.timers_due(10.0)
    assert old.seen_due(minute(1)) == [2]
    new.begin(15.0, old)
    assert new.next_at == 25.0
    assert new.timers[0].left == 2
    assert new.seen_due(minute(1)) == []
    assert new.seen_due(minute(2)) == [2]


def test_what_is_handed_over_goes_on_as_it_was(tmp_path):
    agenda = Agenda()
    path = str(tmp_path / "watched")
    agenda.register([("timer", 1, 10.0, 0), ("timer", 4, 1.0, 1)], 0.0)
    agenda.register([("cron", 2, -1, -1, -1, -1, -1), ("file", 3, path)], 0.0)
    assert agenda.timers_due(2.0) == (4,)
    assert agenda.seen_due(minute(1)) == [2]
    again = Agenda.adopted(json.loads(json.dumps(agenda.handover())))
    assert again.timers == agenda.timers
    assert again.seen_due(minute(1)) == []
    (tmp_path / "watched").write_text("1")
    assert again.seen_due(minute(2)) == [2, 3]


def test_nothing_registered_is_never_due():
    agenda = Agenda()
    assert (agenda.next_at, agenda.has_to_look) == (NEVER, False)
    assert (agenda.timers_due(1e9), agenda.seen_due(minute(1))) == ((), [])


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_file_that_comes_changes_is_exchanged_or_goes_is_a_change(tmp_path):
    agenda = Agenda()
    path = tmp_path / "watched"
    agenda.register([("file", 5, str(path))], 0.0)

    def changed():
        return agenda.seen_due(minute(0)) == [5]

    assert not changed()
    path.write_text("1")
    assert changed()
    assert not changed()
    path.write_text("12")
    assert changed()
    os.utime(path, ns=(1, 1))
    assert changed()
    (tmp_path / "other").write_text("12")
    os.utime(tmp_path / "other", ns=(1, 1))
    (tmp_path / "other").replace(path)
    assert changed()
    path.unlink()
    assert changed()
    assert not changed()


def test_a_folder_changes_with_what_is_in_it(tmp_path):
    before = looks(str(tmp_path))
    (tmp_path / "new").write_text("1")
    after = looks(str(tmp_path))
    assert before != after
    os.utime(tmp_path / "new", ns=(1, 1))
    assert looks(str(tmp_path)) != after
