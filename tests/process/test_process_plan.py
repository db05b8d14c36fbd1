"""The master's decisions: plan(fleet, now), and what events make of a fleet. First each rule, then thousands of traces.

In the rules generation 1 serves with processes 11, 12, …, generation 2 has 21, 22, …: the last digit is the seat.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import Habits, World, adopted, at_start, in_power

from corelet.process.fleet import (
    GROUP_SECONDS,
    KILL_GRACE_SECONDS,
    NEVER,
    Fleet,
    Pause,
)
from corelet.process.life import State
from corelet.process.plan import TOO_LATE, Finish, Kill, Retire, Start, next_time, plan

NOW = 1000.0
MERCY = 25.0


def pids(fleet: Fleet, *states: State) -> list[int]:
    return [member.pid for member in fleet.in_state(*states)]


def ready_pids(fleet: Fleet) -> list[int]:
    return sorted(pids(fleet, State.READY))


def with_coming(fleet: Fleet, *, ready: tuple[int, ...] = (), starting: tuple[int, ...] = ()) -> Fleet:
    """Members of the generation that is coming, on these seats."""
    base = fleet.goal * 10
    for seat in (*ready, *starting):
        fleet = fleet.started(seat, base + seat, NOW)
    for seat in ready:
        fleet = fleet.ready(base + seat, NOW)
    return fleet


# ---- start ----


def test_the_first_plan_starts_a_process_on_every_seat():
    assert plan(at_start(3), NOW) == (Start(1), Start(2), Start(3))


def test_a_seat_with_a_starting_process_gets_no_other():
    assert plan(with_coming(at_start(2), starting=(1,)), NOW) == (Start(2),)


def test_the_first_generation_comes_to_power_when_each_seat_is_ready():
    fleet = with_coming(at_start(2), ready=(1,), starting=(2,))
    assert (fleet.generation, fleet.coming) == (0, 1)
    fleet = fleet.ready(12, NOW)
    assert (fleet.generation, fleet.coming) == (1, 0)
    assert plan(fleet, NOW) == ()


def test_a_first_generation_that_cannot_load_ends_the_server_with_its_code():
    fleet = with_coming(at_start(2), starting=(1, 2)).could_not_load(11, 22, NOW)
    assert plan(fleet, NOW) == (Retire(12, 0.0, "the application cannot be loaded"),)
    fleet = fleet.told(12, 0.0, NOW).reaped(12, NOW)
    assert plan(fleet, NOW) == ()  # 11 has yet to end
    assert plan(fleet.reaped(11, NOW), NOW) == (Finish(22),)


def test_who_is_ready_already_ends_at_once_with_a_first_generation_that_cannot_load():
    fleet = with_coming(at_start(2), ready=(1,), starting=(2,)).could_not_load(12, 22, NOW)
    assert plan(fleet, NOW) == (Retire(11, 0.0, "the application cannot be loaded"),)


def test_of_many_that_cannot_load_the_first_gives_the_code():
    fleet = with_coming(at_start(2), starting=(1, 2)).could_not_load(11, 3, NOW).could_not_load(12, 22, NOW)
    assert plan(fleet.reaped(11, NOW).reaped(12, NOW), NOW) == (Finish(3),)


def test_a_death_at_the_start_with_nobody_ready_ends_the_server():
    fleet = with_coming(at_start(2), starting=(1, 2)).reaped(11, NOW).told(12, 0.0, NOW).reaped(12, NOW)
    assert plan(fleet, NOW) == (Finish(22),)


def test_a_death_at_the_start_beside_one_that_is_ready_is_made_good():
    fleet = with_coming(at_start(2), ready=(1,), starting=(2,)).reaped(12, NOW)
    assert plan(fleet, NOW) == (Start(2),)


def test_a_death_of_one_that_a_reload_has_superseded_is_not_the_end_of_a_start():
    """The master hears of both at once."""
    fleet = with_coming(at_start(1), starting=(1,)).reload("SIGHUP").reaped(11, NOW)
    assert not fleet.stopping
    assert plan(fleet, NOW) == (Start(1),)


def test_what_the_system_had_no_process_for_is_tried_again_and_ever_more_rarely():
    fleet = at_start(1).not_started(1, NOW)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.not_started(1, NOW)
    assert plan(fleet, NOW) == ()
    assert next_time(fleet, NOW) == NOW + 0.5
    assert plan(fleet, NOW + 0.5) == (Start(1),)


def test_a_reload_during_the_start_supersedes_it():
    fleet = with_coming(at_start(2), ready=(1,), starting=(2,)).reload("SIGHUP")
    assert plan(fleet, NOW) == (Retire(12, 0.0, "generation 1 is not to come"), Start(1))
    fleet = fleet.told(12, 0.0, NOW).started(1, 21, NOW).ready(21, NOW)
    assert plan(fleet, NOW) == (Start(2),)
    fleet = with_coming(fleet, ready=(2,))
    assert fleet.generation == 2
    assert plan(fleet, NOW) == (Retire(11, MERCY, "generation 1 is not to come"),)


# ---- reload ----


def test_a_reload_starts_a_whole_generation_and_tells_nobody_to_end():
    fleet = in_power(2).reload("SIGHUP")
    assert (fleet.generation, fleet.coming, fleet.why) == (1, 2, "SIGHUP")
    assert plan(fleet, NOW) == (Start(1), Start(2))


def test_both_generations_serve_until_the_new_one_is_complete():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,))
    assert plan(fleet, NOW) == ()
    assert ready_pids(fleet) == [11, 12, 21]


def test_the_old_generation_retires_when_the_new_one_is_complete():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1, 2))
    assert (fleet.generation, fleet.coming) == (2, 0)
    assert plan(fleet, NOW) == (
        Retire(11, MERCY, "generation 2 is ready"),
        Retire(12, MERCY, "generation 2 is ready"),
    )


def test_a_brutal_reload_gives_running_requests_no_time():
    fleet = with_coming(in_power(1).reload("master-fifo R", brutal=True), ready=(1,))
    assert plan(fleet, NOW) == (Retire(11, 0.0, "generation 2 is ready"),)


def test_brutality_ends_with_the_reload():
    fleet = with_coming(in_power(1).reload("master-fifo R", brutal=True), ready=(1,))
    fleet = fleet.told(11, 0.0, NOW).reaped(11, NOW).recycle(21, "it is old", NOW)
    fleet = fleet.started(1, 99, NOW).ready(99, NOW)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "it is old"),)


def test_a_brutal_reload_that_fails_is_not_brutal_to_its_own():
    """They have taken requests already."""
    fleet = with_coming(in_power(2).reload("master-fifo R", brutal=True), ready=(1,), starting=(2,))
    assert plan(fleet.could_not_load(22, 22, NOW), NOW) == (Retire(21, MERCY, "generation 2 is not to come"),)


def test_a_generation_that_cannot_load_leaves_the_old_one_as_it_was():
    before = in_power(2)
    fleet = with_coming(before.reload("SIGHUP"), ready=(1,), starting=(2,)).could_not_load(22, 22, NOW)
    assert (fleet.generation, fleet.coming) == (1, 0)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "generation 2 is not to come"),)
    fleet = fleet.told(21, MERCY, NOW).reaped(21, NOW).reaped(22, NOW)
    assert fleet.members == before.members
    assert plan(fleet, NOW) == ()


def test_a_failed_generation_loses_those_who_are_starting_at_once():
    fleet = with_coming(in_power(2).reload("SIGHUP"), starting=(1, 2)).could_not_load(22, 22, NOW)
    assert plan(fleet, NOW) == (Retire(21, 0.0, "generation 2 is not to come"),)


def test_who_serves_alone_for_a_failed_generation_gets_a_successor_first():
    """Its predecessor has died in the meantime."""
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).reaped(11, NOW)
    fleet = fleet.could_not_load(22, 22, NOW)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.started(1, 13, NOW).ready(13, NOW)
    assert fleet.member(13).generation == 1
    assert plan(fleet, NOW) == (Retire(21, MERCY, "generation 2 is not to come"),)


def test_who_serves_alone_for_a_failed_generation_is_replaced_now_even_if_it_was_to_be_later():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).reaped(11, NOW)
    fleet = fleet.recycle(21, "it is old", NOW + 60.0).could_not_load(22, 22, NOW)
    assert plan(fleet, NOW) == (Start(1),)


def test_of_two_that_are_to_go_the_one_of_the_generation_that_serves_stays_for_now():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).recycle(11, "it is old", NOW)
    fleet = fleet.could_not_load(22, 22, NOW)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "generation 2 is not to come"), Start(1))


def test_a_seat_added_during_a_reload_that_fails_goes_back_to_the_old_generation():
    fleet = with_coming(in_power(1).reload("SIGHUP").resize(2), ready=(2,), starting=(1,)).could_not_load(21, 22, NOW)
    assert plan(fleet, NOW) == (Start(2),)
    fleet = fleet.started(2, 12, NOW).ready(12, NOW)
    assert plan(fleet, NOW) == (Retire(22, MERCY, "generation 2 is not to come"),)


def test_one_that_cannot_load_and_does_not_end_is_killed():
    """An atexit handler of the application's hangs, for example."""
    fleet = with_coming(at_start(1), starting=(1,)).could_not_load(11, 22, NOW)
    due = NOW + MERCY + KILL_GRACE_SECONDS
    assert next_time(fleet, NOW) == due
    assert plan(fleet, due - 0.001) == ()
    assert plan(fleet, due) == (Kill(11, TOO_LATE),)
    fleet = fleet.killed(11)
    assert plan(fleet, due) == ()
    assert plan(fleet.reaped(11, due), due) == (Finish(22),)


def test_four_deaths_on_one_seat_are_the_end_of_a_generation_that_is_coming():
    fleet = in_power(1).reload("SIGHUP")
    for died in range(4):
        assert fleet.coming == 2, f"after {died} deaths"
        fleet = fleet.started(1, 21, NOW).reaped(21, NOW)
    assert (fleet.generation, fleet.coming) == (1, 0)
    assert plan(fleet, NOW) == ()
    assert ready_pids(fleet) == [11]


def test_a_generation_that_is_coming_has_all_its_tries_even_if_nobody_serves_any_more():
    fleet = with_coming(in_power(1).reload("SIGHUP"), starting=(1,)).reaped(11, NOW).reaped(21, NOW)
    assert fleet.coming == 2
    assert plan(fleet, NOW) == (Start(1),)


def test_deaths_on_different_seats_do_not_add_up():
    fleet = in_power(4).reload("SIGHUP")
    for seat in fleet.seats:
        fleet = fleet.started(seat, 20 + seat, NOW).reaped(20 + seat, NOW)
    assert fleet.coming == 2


def test_a_number_is_never_given_twice():
    fleet = with_coming(in_power(1).reload("SIGHUP"), starting=(1,)).could_not_load(21, 22, NOW)
    assert fleet.reload("SIGHUP").coming == 3


# ---- a reload during a reload ----


def test_a_superseded_generation_is_told_to_end_while_the_old_one_serves():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).reload("SIGHUP")
    assert plan(fleet, NOW) == (
        Retire(22, 0.0, "generation 2 is not to come"),
        Retire(21, MERCY, "generation 2 is not to come"),
        Start(1),
    )
    assert plan(fleet.told(21, MERCY, NOW).told(22, 0.0, NOW).started(1, 31, NOW), NOW) == (Start(2),)


def test_a_superseded_member_that_cannot_load_does_not_harm_the_next_generation():
    fleet = with_coming(in_power(1).reload("SIGHUP"), starting=(1,)).reload("SIGHUP").could_not_load(21, 22, NOW)
    assert fleet.coming == 3


def test_who_serves_alone_for_a_superseded_generation_stays_until_the_next_is_complete():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,)).reaped(11, NOW).reload("SIGHUP")
    fleet = with_coming(fleet, ready=(1,), starting=(2,))
    assert plan(fleet, NOW) == ()
    assert ready_pids(fleet) == [12, 21, 31]
    fleet = fleet.ready(32, NOW)
    assert {action.pid for action in plan(fleet, NOW)} == {12, 21}


def test_who_serves_alone_for_a_superseded_generation_does_not_stay_when_the_next_one_fails():
    fleet = with_coming(in_power(1).reload("SIGHUP").resize(2), ready=(2,), starting=(1,)).reload("SIGHUP")
    fleet = with_coming(fleet.told(21, 0.0, NOW).reaped(21, NOW), starting=(1, 2)).could_not_load(31, 22, NOW)
    fleet = fleet.told(32, 0.0, NOW).reaped(32, NOW).reaped(31, NOW)
    assert plan(fleet, NOW) == (Start(2),)
    assert fleet.goal == 1


# ---- a re-exec ----


def test_a_generation_that_is_given_up_leaves_as_one_that_failed():
    """A new program is to take over, and what is on its way now is of the old one."""
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).give_up()
    assert (fleet.generation, fleet.coming) == (1, 0)
    assert plan(fleet, NOW) == (
        Retire(22, 0.0, "generation 2 is not to come"),
        Retire(21, MERCY, "generation 2 is not to come"),
    )


def test_who_serves_alone_for_a_generation_that_is_given_up_gets_a_successor():
    fleet = with_coming(in_power(1).reload("SIGHUP"), ready=()).reaped(11, NOW).resize(2)
    fleet = with_coming(fleet, ready=(1,), starting=(2,)).give_up()
    assert plan(fleet, NOW) == (Retire(22, 0.0, "generation 2 is not to come"), Start(1))


def test_the_first_generation_cannot_be_given_up():
    fleet = with_coming(at_start(1), starting=(1,))
    assert fleet.give_up() == fleet


def test_adopted_workers_of_a_chain_that_was_not_finished_are_replaced_with_the_others():
    fleet = replace(adopted(2), coming=3, newest=3)
    fleet = fleet.with_members([replace(fleet.members[0], pid=21, generation=2), fleet.members[1]])
    assert plan(fleet, NOW) == (Start(1), Start(2))
    fleet = with_coming(fleet, ready=(1, 2))
    assert fleet.generation == 3
    assert {action.pid for action in plan(fleet, NOW)} == {12, 21}


# ---- chain reload ----


def test_a_chain_reload_replaces_one_seat_after_the_other():
    fleet = in_power(2).reload("SIGHUP", chain=True)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.started(1, 21, NOW)
    assert plan(fleet, NOW) == ()
    fleet = fleet.ready(21, NOW)
    assert plan(fleet, NOW) == (Retire(11, MERCY, "generation 2 is ready"), Start(2))
    fleet = fleet.told(11, MERCY, NOW).started(2, 22, NOW)
    assert (fleet.generation, fleet.coming) == (1, 2)
    fleet = fleet.ready(22, NOW)
    assert (fleet.generation, fleet.coming, fleet.chain) == (2, 0, False)
    assert plan(fleet, NOW) == (Retire(12, MERCY, "generation 2 is ready"),)


def test_a_chain_starts_one_even_when_two_are_due():
    fleet = in_power(2).reload("SIGHUP", chain=True).started(1, 21, NOW).ready(21, NOW).told(11, MERCY, NOW)
    assert plan(fleet.recycle(21, "stopped", NOW), NOW) == (Start(1),)


def test_an_empty_seat_does_not_wait_for_its_turn_in_a_chain():
    fleet = in_power(3).reload("SIGHUP", chain=True).started(1, 21, NOW).reaped(13, NOW)
    assert plan(fleet, NOW) == (Start(3),)


def test_what_a_chain_reload_has_brought_stays_when_it_fails():
    fleet = in_power(2).reload("SIGHUP", chain=True).started(1, 21, NOW).ready(21, NOW).told(11, MERCY, NOW)
    fleet = fleet.reaped(11, NOW).started(2, 22, NOW).could_not_load(22, 22, NOW).reaped(22, NOW)
    assert (fleet.generation, fleet.coming, fleet.chain) == (1, 0, False)
    assert ready_pids(fleet) == [12, 21]
    assert plan(fleet, NOW) == ()


def test_one_that_a_failed_chain_reload_has_left_says_why_it_goes():
    fleet = replace(in_power(1), newest=2)
    fleet = fleet.with_members([replace(fleet.members[0], pid=21, generation=2)]).recycle(21, "it is old", NOW)
    fleet = fleet.started(1, 11, NOW).ready(11, NOW)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "it is old"),)


def test_a_chain_reload_that_fails_before_anybody_was_told_leaves_the_old_ones():
    """That one is ready and another cannot load is heard of at once."""
    fleet = in_power(2).reload("SIGHUP", chain=True).started(1, 21, NOW).reaped(12, NOW).started(2, 22, NOW)
    fleet = fleet.ready(21, NOW).could_not_load(22, 22, NOW)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "generation 2 is not to come"), Start(2))


def test_what_a_failed_chain_reload_has_left_is_replaced_by_the_next_reload():
    fleet = in_power(2).reload("SIGHUP", chain=True).started(1, 21, NOW).ready(21, NOW).told(11, MERCY, NOW)
    fleet = fleet.reaped(11, NOW).started(2, 22, NOW).could_not_load(22, 22, NOW).reaped(22, NOW).reload("SIGHUP")
    fleet = with_coming(fleet, ready=(1, 2))
    assert fleet.generation == 3
    assert {action.pid for action in plan(fleet, NOW)} == {12, 21}


# ---- deaths ----


def test_one_that_lived_long_is_replaced_at_once():
    fleet = in_power(2).reaped(11, NOW)
    assert plan(fleet, NOW) == (Start(1),)
    assert fleet.pause(1) == Pause(0, 0.0)


def test_a_seat_whose_members_die_young_is_filled_ever_more_rarely():
    fleet, now, pauses = in_power(1), NOW, []
    fleet = fleet.reaped(11, now)
    for _ in range(10):
        assert plan(fleet, now) == (Start(1),)
        fleet = fleet.started(1, 12, now).ready(12, now).reaped(12, now)
        then = now if plan(fleet, now) else next_time(fleet, now)
        pauses.append(then - now)
        now = then
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_seat_may_fail_for_days():
    fleet, now = in_power(1).reaped(11, NOW), NOW
    for _ in range(3000):  # a day of pauses of 30 seconds
        fleet = fleet.started(1, 12, now).could_not_load(12, 22, now).reaped(12, now)
        now = max(now, fleet.pause(1).until)
    assert fleet.pause(1).until == now
    assert plan(fleet, now) == (Start(1),)


def test_a_long_life_makes_good_for_those_who_died_young():
    fleet = replace(in_power(1), pauses=((1, Pause(7, 0.0)),)).reaped(11, NOW)
    assert fleet.pause(1).strikes == 0
    assert plan(fleet, NOW) == (Start(1),)


@pytest.mark.parametrize(("age", "strikes"), [(10.0, 1), (10.1, 0)])
def test_young_is_ten_seconds(age, strikes):
    fleet = in_power(1).reaped(11, NOW).started(1, 12, NOW).ready(12, NOW).reaped(12, NOW + age)
    assert fleet.pause(1).strikes == strikes


def test_long_loading_is_no_life():
    fleet = in_power(1).reaped(11, NOW).started(1, 12, NOW).reaped(12, NOW + 60.0)
    assert fleet.pause(1).strikes == 1


def test_pauses_of_one_seat_are_no_pauses_of_another():
    fleet = replace(in_power(2), members=(), pauses=((1, Pause(7, NOW + 30.0)),))
    assert plan(fleet, NOW) == (Start(2),)


def test_a_reload_forgets_pauses():
    fleet = replace(in_power(1), pauses=((1, Pause(7, NOW + 30.0)),)).reload("SIGHUP")
    assert plan(fleet, NOW) == (Start(1),)


def test_a_new_seat_that_cannot_load_does_not_harm_the_others():
    fleet = in_power(1).resize(2).started(2, 12, NOW).could_not_load(12, 22, NOW).reaped(12, NOW)
    assert not fleet.stopping
    assert ready_pids(fleet) == [11]
    assert plan(fleet, NOW) == (Start(2),)


def test_one_that_the_master_has_killed_is_replaced_at_once_and_counts_as_no_death():
    fleet = in_power(1).killed(11)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.started(1, 12, NOW).reaped(11, NOW)
    assert fleet.pause(1).strikes == 0
    assert plan(fleet, NOW) == ()


def test_what_does_not_end_is_killed_at_its_time_and_once():
    fleet = in_power(1).resize(1).told(11, 3.0, NOW).started(1, 12, NOW).ready(12, NOW)
    due = NOW + 3.0 + KILL_GRACE_SECONDS
    assert next_time(fleet, NOW) == due
    assert plan(fleet, due - 0.001) == ()
    assert plan(fleet, due) == (Kill(11, TOO_LATE),)
    assert plan(fleet.killed(11), due + 100.0) == ()


def test_what_was_told_is_not_told_again_and_keeps_its_time():
    fleet = in_power(1).told(11, 3.0, NOW)
    assert fleet.told(11, 50.0, NOW) == fleet
    assert fleet.told(11, 1.0, NOW) == fleet


def test_words_of_a_worker_that_has_been_told_change_nothing():
    """It was told while it loaded, and says that it is ready before it has heard."""
    fleet = in_power(1).reload("SIGHUP").started(1, 21, NOW).told(21, 0.0, NOW)
    assert fleet.ready(21, NOW) == fleet


def test_processes_that_are_not_workers_change_nothing():
    fleet = in_power(2)
    for changed in (
        fleet.ready(999, NOW), fleet.told(999, 1.0, NOW), fleet.left(999, NOW), fleet.killed(999),
        fleet.could_not_load(999, 22, NOW), fleet.reaped(999, NOW), fleet.recycle(999, "it is old", NOW),
    ):  # fmt: skip
        assert changed == fleet


# ---- a worker that ends by itself ----


def test_one_that_was_told_by_somebody_else_gets_a_successor_after_a_moment():
    fleet = in_power(1).left(11, NOW)
    assert plan(fleet, NOW) == ()
    assert next_time(fleet, NOW) == NOW + GROUP_SECONDS
    assert plan(fleet, NOW + GROUP_SECONDS) == (Start(1),)
    assert plan(fleet.reaped(11, NOW), NOW + GROUP_SECONDS) == (Start(1),)


def test_one_that_the_master_has_told_and_somebody_else_too_makes_nobody_wait():
    fleet = in_power(1).told(11, MERCY, NOW)
    assert fleet.left(11, NOW) == fleet


def test_one_that_ends_by_itself_does_not_make_good_for_those_who_died_young():
    fleet = replace(in_power(1), pauses=((1, Pause(3, 0.0)),)).left(11, NOW)
    assert fleet.pause(1) == Pause(3, NOW + GROUP_SECONDS)


def test_nobody_is_started_when_a_signal_to_the_group_reaches_the_workers_first():
    fleet = in_power(2).left(11, NOW).left(12, NOW)
    assert plan(fleet, NOW) == ()
    fleet = fleet.stop("SIGTERM", MERCY)
    assert plan(fleet, NOW + GROUP_SECONDS) == ()
    assert plan(fleet.reaped(11, NOW).reaped(12, NOW), NOW) == (Finish(0),)


def test_one_that_ends_by_itself_and_hangs_is_killed():
    fleet = in_power(1).left(11, NOW).started(1, 12, NOW + 1).ready(12, NOW + 1)
    assert plan(fleet, NOW + MERCY + KILL_GRACE_SECONDS) == (Kill(11, TOO_LATE),)


# ---- recycling ----


def test_a_recycled_worker_serves_until_its_successor_is_ready():
    fleet = in_power(2).recycle(11, "it is old", NOW)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.started(1, 13, NOW)
    assert plan(fleet, NOW) == ()
    fleet = fleet.ready(13, NOW)
    assert plan(fleet, NOW) == (Retire(11, MERCY, "it is old"),)


def test_of_two_of_one_generation_the_younger_stays():
    fleet = in_power(1).recycle(11, "it is old", NOW).started(1, 12, NOW).ready(12, NOW)
    fleet = fleet.recycle(12, "stopped", NOW)
    assert plan(fleet, NOW) == (Retire(11, MERCY, "it is old"), Start(1))


def test_a_worker_is_not_recycled_before_its_time():
    fleet = in_power(1).recycle(11, "it is old", NOW + 60.0)
    assert plan(fleet, NOW + 59.9) == ()
    assert next_time(fleet, NOW) == NOW + 60.0
    assert plan(fleet, NOW + 60.0) == (Start(1),)


def test_asked_twice_to_recycle_the_earlier_time_holds():
    """It has asked for it (max-requests, at 60 s of age), and then somebody stops it by SIGSTOP."""
    fleet = in_power(1).recycle(11, "it is old", NOW + 60.0).recycle(11, "stopped by SIGSTOP", NOW)
    assert plan(fleet, NOW) == (Start(1),)
    assert fleet.recycle(11, "it is old", NOW + 60.0) == fleet


def test_one_that_is_to_be_replaced_and_dies_is_replaced_as_any_other():
    fleet = in_power(1).recycle(11, "it is old", NOW + 60.0).reaped(11, NOW)
    assert plan(fleet, NOW) == (Start(1),)


def test_a_recycled_worker_of_a_generation_that_is_coming_is_replaced_beside_the_old_one():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).recycle(21, "stopped", NOW)
    assert plan(fleet, NOW) == (Start(1),)
    fleet = fleet.started(1, 23, NOW).ready(23, NOW)
    assert plan(fleet, NOW) == (Retire(21, MERCY, "stopped"),)


# ---- another number of workers ----


def test_more_workers_are_started_and_belong_to_the_generation_that_serves():
    fleet = in_power(1).resize(3)
    assert plan(fleet, NOW) == (Start(2), Start(3))
    assert fleet.started(2, 12, NOW).member(12).generation == 1


def test_fewer_workers_end_in_order():
    assert plan(in_power(3).resize(1), NOW) == (
        Retire(12, MERCY, "1 workers are enough"),
        Retire(13, MERCY, "1 workers are enough"),
    )


def test_there_is_always_one_worker():
    assert in_power(2).resize(0).wanted == 1
    assert in_power(2).resize(-3).wanted == 1


def test_a_seat_that_is_not_wanted_any_more_does_not_keep_a_generation_from_coming():
    fleet = with_coming(in_power(2).reload("SIGHUP"), ready=(1,), starting=(2,)).resize(1)
    assert (fleet.generation, fleet.coming) == (2, 0)


def test_a_pause_of_a_seat_that_is_not_wanted_wakes_nobody():
    fleet = replace(in_power(2), pauses=((2, Pause(3, NOW + 1.0)),)).resize(1)
    assert next_time(fleet.told(12, MERCY, NOW).reaped(12, NOW), NOW) == NEVER


# ---- the end ----


def test_a_stop_gives_those_who_serve_their_mercy_and_those_who_start_none():
    fleet = replace(in_power(1), stop_mercy=7.0).resize(2).started(2, 12, NOW).stop("SIGTERM", 7.0)
    assert plan(fleet, NOW) == (Retire(11, 7.0, "SIGTERM"), Retire(12, 0.0, "SIGTERM"))


@pytest.mark.parametrize(("asked", "given"), [(3.0, 3.0), (0.0, 0.0), (100.0, 7.0)])
def test_a_stop_gives_no_more_than_it_was_asked_and_than_reload_mercy(asked, given):
    fleet = replace(in_power(1), stop_mercy=7.0).stop("SIGTERM", asked)
    assert plan(fleet, NOW) == (Retire(11, given, "SIGTERM"),)


def test_no_generation_comes_to_power_during_a_stop():
    fleet = with_coming(at_start(1), starting=(1,)).stop("SIGTERM", MERCY).ready(11, NOW)
    assert fleet.generation == 0


def test_a_stop_ends_when_the_last_process_has_ended():
    fleet = in_power(2).stop("SIGTERM", MERCY).told(11, MERCY, NOW).told(12, MERCY, NOW).reaped(11, NOW)
    assert plan(fleet, NOW) == ()
    assert plan(fleet.reaped(12, NOW), NOW) == (Finish(0),)


def test_nobody_is_started_during_a_stop():
    fleet = in_power(2).stop("SIGTERM", MERCY).reaped(11, NOW)
    assert plan(fleet, NOW) == (Retire(12, MERCY, "SIGTERM"),)


def test_a_stop_kills_those_who_do_not_end():
    fleet = in_power(1).stop("SIGTERM", 5.0).told(11, 5.0, NOW)
    assert plan(fleet, NOW + 5.0 + KILL_GRACE_SECONDS) == (Kill(11, TOO_LATE),)


def test_a_second_stop_shortens_the_first():
    fleet = in_power(1).stop("SIGTERM", MERCY).told(11, MERCY, NOW)
    fleet = fleet.stop("SIGINT", 0.0).shorten(0.0, NOW)
    assert fleet.stopping == "SIGTERM"
    assert next_time(fleet, NOW) == NOW + KILL_GRACE_SECONDS


def test_a_time_that_is_shorter_already_stays():
    fleet = in_power(1).told(11, 1.0, NOW)
    assert fleet.shorten(20.0, NOW) == fleet


def test_one_that_cannot_load_and_hangs_has_its_time_shortened_too():
    fleet = with_coming(at_start(1), starting=(1,)).could_not_load(11, 22, NOW).stop("SIGTERM", 0.0).shorten(0.0, NOW)
    assert next_time(fleet, NOW) == NOW + KILL_GRACE_SECONDS


def test_who_was_killed_is_not_killed_again_because_time_is_shortened():
    fleet = in_power(1).stop("SIGTERM", 1.0).told(11, 1.0, NOW).killed(11).shorten(-1.0, NOW)
    assert plan(fleet, NOW + 100.0) == ()


def test_a_stop_before_anybody_is_ready_is_in_order():
    fleet = with_coming(at_start(1), starting=(1,)).stop("SIGTERM", MERCY)
    fleet = fleet.told(11, 0.0, NOW).reaped(11, NOW)
    assert plan(fleet, NOW) == (Finish(0),)


@pytest.mark.parametrize("ends", ["dies", "cannot load"])
def test_a_failure_that_is_heard_of_after_the_stop_does_not_change_the_exit_code(ends):
    """Both were in the pipe when the master woke."""
    fleet = with_coming(at_start(1), starting=(1,)).stop("SIGTERM", MERCY)
    if ends == "cannot load":
        fleet = fleet.could_not_load(11, 22, NOW)
    fleet = fleet.reaped(11, NOW)
    assert (fleet.stopping, plan(fleet, NOW)) == ("SIGTERM", (Finish(0),))


def test_a_reload_after_a_stop_is_too_late():
    fleet = in_power(1).stop("SIGTERM", MERCY)
    assert fleet.reload("SIGHUP") == fleet


# ---- traces ----

RELOADS = ("reload", "reload", "chain", "brutal")
QUIET = (*RELOADS, "resize", "recycle", "sigstop")
STARTS = (at_start, in_power, adopted)
KINDS = {
    "no worker dies": Habits(no_process=0.1, orders=QUIET),
    "code that cannot be loaded": Habits(broken=0.7, luck=0.4, orders=(*QUIET, "resize", "resize", "give up")),
    "everything goes wrong": Habits(
        0.4, 0.15, broken=0.2, no_process=0.1, orders=(*QUIET, "give up", "leave", "harakiri")
    ),
    "stops": Habits(0.3, 0.1, broken=0.2, no_process=0.1, orders=(*QUIET, "give up", "leave", "stop", "hurry", "quit")),
}


def lived(kind: str, habits: Habits, seed: int, *starts, orders: int = 5) -> World:
    """The world after a trace; its story is told when a promise was not kept."""
    return live(random.Random(f"{kind} {seed}"), habits, starts, orders)


def live(chance: random.Random, habits: Habits, starts, orders: int = 5) -> World:
    world = World(chance, habits, chance.choice(starts)(chance.choice((1, 2, 2, 3, 4))))
    try:
        world.run(orders)
        if world.finished is None:
            world.check_rest()
        else:
            assert world.finished == world.expected_code
    except Exception as error:
        raise AssertionError(f"{error!r}\n{world.told()}") from error
    return world


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_promises_hold_when(kind, part):
    seen = [lived(kind, KINDS[kind], part * 1000 + seed, *STARTS) for seed in range(210)]
    assert any(world.fleet.newest > 4 for world in seen)


def test_reloads_that_can_be_loaded_come_to_power_whatever_else_is_asked():
    for seed in range(120):
        world = lived("good", Habits(orders=QUIET), seed, *STARTS)
        assert {member.generation for member in world.fleet.members} == {world.fleet.newest}, world.told()


def test_reloads_that_cannot_be_loaded_leave_the_very_same_processes_in_power():
    habits = Habits(broken=1.0, no_process=0.1, orders=("reload", "reload", "brutal"))
    for seed in range(120):
        world = lived("bad", habits, seed, in_power)
        before = in_power(world.fleet.wanted)
        assert world.fleet.members == before.members, world.told()
        assert world.fleet.generation == 1


def test_the_old_generation_is_told_nothing_while_one_that_will_fail_is_coming():
    world = lived("bad", Habits(broken=1.0, orders=("reload",)), 1, in_power)
    told = {what.pid for _, what in world.story if isinstance(what, Retire | Kill)}
    assert told
    assert min(told) > 1000  # the simulation's own processes; those of generation 1 have two digits


def test_a_start_that_cannot_be_loaded_always_ends():
    for seed in range(120):
        world = lived(
            "start", Habits(broken_start=True, orders=("resize", "recycle", "stop")), seed, at_start, orders=3
        )
        assert world.finished in (0, 1, 22, 70), world.told()


def test_a_stop_always_ends_in_order_and_in_time():
    habits = replace(KINDS["stops"], orders=("reload", "chain", "resize", "leave", "sigstop", "recycle"))
    for seed in range(200):
        world = World(random.Random(seed), habits, in_power(3))
        try:
            world.run(2, rest=False)
            world.order("stop")
            world.settle()
            asked = world.now
            world.go_on_until(NEVER)
            assert world.finished == 0
            assert world.now <= asked + world.fleet.stop_mercy + KILL_GRACE_SECONDS + 0.1
        except Exception as error:
            raise AssertionError(f"{error!r}\n{world.told()}") from error


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(KINDS)))
def test_promises_hold_for_traces_that_hypothesis_can_shorten(chance, kind):
    live(chance, KINDS[kind], STARTS, orders=4)
