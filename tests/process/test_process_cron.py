"""Cron: what is due, each minute once, and what runs already."""

import json
import signal
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelet.base.config import Config
from corelet.base.errors import ConfigError
from corelet.process.cron import CronJob, Crons, due, parse_cron, parse_cron2

WEDNESDAY = datetime(2025, 1, 1, 10, 30, tzinfo=UTC)
EXIT_3 = 3 << 8  # as os.waitpid says it


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def is_due(text, when):
    return due(parse_cron(f"{text} true"), at(when))


# ---- reading ----


def test_a_job_is_five_numbers_and_a_command():
    text = "59 2 -1 -1 -1 /usr/bin/backup 'my home' --recursive"
    assert parse_cron(text) == CronJob(59, 2, -1, -1, -1, ("/usr/bin/backup", "my home", "--recursive"), False, text)


def test_blanks_between_the_numbers_may_be_many():
    job = parse_cron("  1\t2  3 4   5  echo   a ")
    assert (job.minute, job.hour, job.day, job.month, job.weekday, job.words) == (1, 2, 3, 4, 5, ("echo", "a"))


def test_cron2_names_what_is_not_every():
    text = "minute=30,hour=5,day=-2,month=12,week=7,unique=1 /usr/local/bin/backup.sh now"
    assert parse_cron2(text) == CronJob(30, 5, -2, 12, 7, ("/usr/local/bin/backup.sh", "now"), True, text)
    assert parse_cron2("minute=-2 sleep 130") == CronJob(
        -2, -1, -1, -1, -1, ("sleep", "130"), False, "minute=-2 sleep 130"
    )


def test_cron2_without_names_is_a_command_for_every_minute():
    for text in ("my command", "command"):
        assert parse_cron2(text) == CronJob(-1, -1, -1, -1, -1, tuple(text.split()), False, text)


def test_harakiri_0_is_what_there_is():
    assert parse_cron2("harakiri=0,minute=1 true").minute == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected 'MINUTE HOUR DAY MONTH WEEKDAY COMMAND'"),
        ("1 2 3 4 5", "expected 'MINUTE HOUR DAY MONTH WEEKDAY COMMAND'"),
        ("1 2 3 4 true", "expected 'MINUTE HOUR DAY MONTH WEEKDAY COMMAND'"),
        ("60 -1 -1 -1 -1 true", "expected for the minute a number from 0 to 59"),
        ("-61 -1 -1 -1 -1 true", "expected for the minute a number from 0 to 59"),
        ("-1 24 -1 -1 -1 true", "expected for the hour a number from 0 to 23"),
        ("-1 -25 -1 -1 -1 true", "expected for the hour a number from 0 to 23"),
        ("-1 -1 0 -1 -1 true", "expected for the day a number from 1 to 31"),
        ("-1 -1 32 -1 -1 true", "expected for the day a number from 1 to 31"),
        ("-1 -1 -1 0 -1 true", "expected for the month a number from 1 to 12"),
        ("-1 -1 -1 13 -1 true", "expected for the month a number from 1 to 12"),
        ("-1 -1 -1 -1 8 true", "expected for the weekday a number from 0 to 7"),
        ("* -1 -1 -1 -1 true", "got '*' in '* -1 -1 -1 -1 true'; write -1"),
        ("*/5 -1 -1 -1 -1 true", "; write -5"),
        ("1,2 -1 -1 -1 -1 true", "got '1,2'"),
        ("1_0 -1 -1 -1 -1 true", "got '1_0'"),
        ("-1 -1 -1 -1 -1 a | b", "write sh -c 'a | b'"),
    ],
)
def test_nonsense_is_refused(text, reason):
    with pytest.raises(ConfigError) as caught:
        parse_cron(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a command"),
        ("minute=1", "write the command"),
        ("minute=1,hour=2 ", "write the command"),
        ("minute=1, hour=2 true", "got = in"),
        ("minute=60 true", "expected for the minute"),
        ("week=8 true", "expected for the weekday"),
        ("minute= true", "expected for the minute"),
        ("unique=2 true", "expected unique=0 or unique=1"),
        ("harakiri=10 true", "write timeout 10 COMMAND"),
        ("legion=mine true", "got legion=mine"),
        ("weekday=1 true", "expected minute=, hour=, day=, month=, week= or unique="),
        ("minute=1 a | b", "write sh -c 'a | b'"),
    ],
)
def test_nonsense_in_cron2_is_refused(text, reason):
    with pytest.raises(ConfigError) as caught:
        parse_cron2(text)
    assert reason in str(caught.value)


def test_all_mistakes_of_the_configuration_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Crons.from_config(Config(cron=("x", "-1 -1 -1 -1 -1 true", "y"), cron2=("minute=x true",)))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["--cron", "--cron", "--cron2"]


def test_the_jobs_of_the_configuration_are_those_of_both_options():
    crons = Crons.from_config(Config(cron=("1 -1 -1 -1 -1 a",), cron2=("minute=2 b",)))
    assert [(job.minute, job.words) for job in crons.jobs] == [(1, ("a",)), (2, ("b",))]


# ---- what is due ----


@pytest.mark.parametrize(
    ("text", "when", "expected"),
    [
        ("-1 -1 -1 -1 -1", "2025-01-01 10:31", True),
        ("30 10 -1 -1 -1", "2025-01-01 10:30", True),
        ("30 10 -1 -1 -1", "2025-01-01 10:31", False),
        ("30 10 -1 -1 -1", "2025-01-01 11:30", False),
        ("-5 -1 -1 -1 -1", "2025-01-01 10:35", True),
        ("-5 -1 -1 -1 -1", "2025-01-01 10:36", False),
        ("-60 -1 -1 -1 -1", "2025-01-01 10:00", True),
        ("-60 -1 -1 -1 -1", "2025-01-01 10:30", False),
        ("0 -2 -1 -1 -1", "2025-01-01 10:00", True),
        ("0 -2 -1 -1 -1", "2025-01-01 11:00", False),
        ("0 -24 -1 -1 -1", "2025-01-01 00:00", True),
        ("0 0 -2 -1 -1", "2025-01-02 00:00", True),
        ("0 0 -2 -1 -1", "2025-01-03 00:00", False),
        ("0 0 31 -1 -1", "2025-01-31 00:00", True),
        ("0 0 1 -3 -1", "2025-03-01 00:00", True),
        ("0 0 1 -3 -1", "2025-01-01 00:00", False),
        ("0 0 1 12 -1", "2025-12-01 00:00", True),
        ("0 0 1 12 -1", "2025-11-01 00:00", False),
        ("0 0 -1 -1 0", "2025-01-05 00:00", True),  # a Sunday
        ("0 0 -1 -1 7", "2025-01-05 00:00", True),
        ("0 0 -1 -1 0", "2025-01-06 00:00", False),
        ("0 0 -1 -1 7", "2025-01-06 00:00", False),
        ("0 0 -1 -1 3", "2025-01-01 00:00", True),
        ("0 0 -1 -1 -2", "2025-01-07 00:00", True),  # Sunday, Tuesday, Thursday, Saturday
        ("0 0 -1 -1 -2", "2025-01-01 00:00", False),
        ("0 0 -1 -1 -7", "2025-01-05 00:00", True),
    ],
)
def test_a_job_is_due_in_the_minutes_that_its_numbers_name(text, when, expected):
    assert is_due(text, when) is expected


@pytest.mark.parametrize(
    ("text", "when", "expected"),
    [
        ("0 5 1 -1 1", "2025-02-01 05:00", True),  # the first, a Saturday
        ("0 5 1 -1 1", "2025-02-03 05:00", True),  # a Monday
        ("0 5 1 -1 7", "2025-02-02 05:00", True),  # a Sunday
        ("0 5 1 -1 1", "2025-02-04 05:00", False),
        ("0 5 1 3 1", "2025-02-03 05:00", False),  # the month must hold all the same
        ("0 5 -2 -1 1", "2025-02-03 05:00", False),  # one of them negative: both must hold
        ("0 5 -3 -1 1", "2025-02-03 05:00", True),
        ("0 5 1 -1 -1", "2025-02-03 05:00", False),
    ],
)
def test_a_day_and_a_weekday_that_are_both_given_are_ored(text, when, expected):
    assert is_due(text, when) is expected


def number(least, most):
    return st.integers(-most, most).filter(lambda value: value < 0 or value >= least)


@given(number(0, 59), number(0, 23), number(1, 31), number(1, 12), number(0, 7), st.datetimes(timezones=st.just(UTC)))
def test_due_is_the_formula_of_uwsgi(minute, hour, day, month, week, when):
    """uwsgi_cron_task_needs_execution: a negative number becomes the current value if it divides it."""

    def meant(asked, actual):
        return actual if asked < 0 and actual % abs(asked) == 0 else asked

    weekday = (when.weekday() + 1) % 7
    time_holds = (meant(minute, when.minute), meant(hour, when.hour), meant(month, when.month)) == (
        when.minute, when.hour, when.month,
    )  # fmt: skip
    of_day = meant(day, when.day) == when.day
    of_week = meant(0 if week == 7 else week, weekday) == weekday
    expected = time_holds and (of_day or of_week if day >= 0 and week >= 0 else of_day and of_week)
    assert due(parse_cron(f"{minute} {hour} {day} {month} {week} true"), when) is expected


# ---- ticking ----


def ticked(crons, *times):
    """The names of the jobs that each of these ticks gave."""
    return [" ".join(job.words[0] for job in crons.tick(time)) for time in times]


def seconds(start, *offsets):
    return [start + timedelta(seconds=offset) for offset in offsets]


def every_minute():
    return Crons([parse_cron("-1 -1 -1 -1 -1 job")])


def test_a_minute_is_done_once_whatever_the_tick_rate():
    crons = every_minute()
    assert ticked(crons, *seconds(WEDNESDAY, 0, 0.5, 1, 59.9, 60, 60.5, 119, 121)) == [
        "job", "", "", "", "job", "", "", "job",
    ]  # fmt: skip


def test_only_what_is_due_is_given_and_all_of_it_in_order():
    crons = Crons([parse_cron(f"{text} -1 -1 -1 -1 {name}") for text, name in (("30", "a"), ("31", "b"), ("-2", "c"))])
    assert ticked(crons, *seconds(WEDNESDAY, 3, 63, 123)) == ["a c", "b", "c"]


def test_a_minute_that_nobody_was_awake_for_is_not_made_up_for():
    crons = Crons([parse_cron("31 10 -1 -1 -1 job")])
    assert ticked(crons, *seconds(WEDNESDAY, 59, 130)) == ["", ""]


@pytest.mark.parametrize("back", [1, 59, 600, 2 * 3600])
def test_after_a_step_back_nothing_is_done_until_the_clock_is_where_it_was(back):
    crons = every_minute()
    assert ticked(crons, WEDNESDAY) == ["job"]
    assert ticked(crons, *seconds(WEDNESDAY, -back, -back + 1, 1, 59)) == ["", "", "", ""]
    assert ticked(crons, *seconds(WEDNESDAY, 60)) == ["job"]


def test_after_a_step_back_of_more_than_three_hours_the_clock_was_wrong_before():
    crons = every_minute()
    assert ticked(crons, WEDNESDAY, *seconds(WEDNESDAY, -86400, -86399, -86340)) == ["job", "job", "", "job"]


def test_when_summer_time_ends_a_given_hour_comes_once_and_every_hour_twice():
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    crons = Crons([parse_cron("30 2 -1 -1 -1 nightly"), parse_cron("30 -1 -1 -1 -1 hourly")])
    first, second = (datetime(2025, 10, 26, 2, 30, tzinfo=zone) for zone in (summer, winter))
    assert ticked(crons, first, second, second + timedelta(days=1)) == ["nightly hourly", "hourly", "nightly hourly"]


def test_a_time_without_a_zone_is_local_time():
    crons = every_minute()
    assert ticked(crons, datetime(2025, 1, 1, 10, 30), datetime(2025, 1, 1, 10, 30, 59)) == ["job", ""]


@given(st.lists(st.integers(0, 7200), min_size=1, max_size=200))
def test_no_minute_is_ever_done_twice_within_three_hours(offsets):
    crons = every_minute()
    done = [when.replace(second=0) for when in seconds(WEDNESDAY, *offsets) if crons.tick(when)]
    assert len(done) == len(set(done))
    assert done == sorted(done)


# ---- what runs ----


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "corelet")
    return caplog


def test_a_unique_job_is_left_out_while_the_last_one_runs_and_that_is_said_once(said):
    crons = Crons([parse_cron2("unique=1 slow"), parse_cron2("quick")])
    slow, quick = crons.tick(WEDNESDAY)
    crons.started(slow, 100)
    crons.started(quick, 101)
    said.clear()
    assert ticked(crons, *seconds(WEDNESDAY, 60, 120)) == ["quick", "quick"]
    assert said.messages == ["cron unique=1 slow: still running, so it is left out until it has ended"]
    assert crons.reaped(100, 0)
    assert ticked(crons, *seconds(WEDNESDAY, 180)) == ["slow quick"]


def test_a_unique_job_that_is_slow_again_is_mentioned_again(said):
    crons = Crons([parse_cron2("unique=1 slow")])
    for pid, start in ((100, 0), (101, 120)):
        crons.started(crons.tick(WEDNESDAY + timedelta(seconds=start))[0], pid)
        assert not crons.tick(WEDNESDAY + timedelta(seconds=start + 60))
        assert crons.reaped(pid, 0)
    assert said.text.count("still running") == 2


def test_start_and_failure_are_one_line_each_and_success_says_nothing(said):
    crons = every_minute()
    (job,) = crons.tick(WEDNESDAY)
    for pid, status in ((100, 0), (101, EXIT_3), (102, signal.SIGKILL)):
        crons.started(job, pid)
        assert crons.reaped(pid, status)
    assert said.messages == [
        "cron -1 -1 -1 -1 -1 job: started (pid 100)",
        "cron -1 -1 -1 -1 -1 job: started (pid 101)",
        "cron -1 -1 -1 -1 -1 job (pid 101): exit code 3; see what it wrote",
        "cron -1 -1 -1 -1 -1 job: started (pid 102)",
        "cron -1 -1 -1 -1 -1 job (pid 102): killed by SIGKILL; see what it wrote",
    ]


def test_the_end_of_another_process_is_not_ours(said):
    crons = every_minute()
    crons.started(crons.jobs[0], 100)
    said.clear()
    assert not crons.reaped(99, EXIT_3)
    assert crons.reaped(100, 0)
    assert not crons.reaped(100, EXIT_3)
    assert said.messages == []


def test_a_new_master_neither_repeats_the_minute_nor_forgets_what_runs(said):
    before = Crons([parse_cron2("unique=1 slow"), parse_cron2("gone")])
    slow, gone = before.tick(WEDNESDAY)
    before.started(slow, 100)
    before.started(gone, 101)
    after = Crons([parse_cron2("unique=1 slow"), parse_cron2("new")])
    after.adopt(json.loads(json.dumps(before.handover())))
    assert ticked(after, *seconds(WEDNESDAY, 30, 60)) == ["", "new"]
    assert after.reaped(101, EXIT_3)
    assert after.reaped(100, 0)
    assert ticked(after, *seconds(WEDNESDAY, 120)) == ["slow new"]
