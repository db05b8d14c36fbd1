"""What may be registered for uWSGI's signals, and what the errors say."""

import json

import pytest

from corelet.api.registry import (
    MAX_ENTRIES,
    TEXT_BYTES,
    Registry,
    cron_fields_of,
    entries_of,
    iterations_of,
    path_of,
    seconds_of,
    signal_number,
    target_of,
)


def handler(number):
    pass


@pytest.mark.parametrize(
    "given, kept",
    [
        ("", "worker"), ("worker", "worker"), ("worker0", "worker"), ("workers", "workers"),
        ("active-workers", "workers"), ("worker1", "worker1"), ("worker12", "worker12"),
    ],
)  # fmt: skip
def test_the_targets_of_uwsgi_that_there_are(given, kept):
    assert target_of(given) == kept


@pytest.mark.parametrize(
    "target, hint",
    [
        ("mule", "attach-daemon"), ("mules", "attach-daemon"), ("mule1", "attach-daemon"), ("farm_x", "attach-daemon"),
        ("spooler", "task queue"), ("subscribed", "workers"), ("nonsense", "workerN"), ("worker-1", "workerN"),
        ("worker01", "workerN"),
    ],
)  # fmt: skip
def test_another_target_is_an_error_that_says_what_to_do_instead(target, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        Registry().register(1, target, handler)
    assert repr(target) in str(caught.value)


@pytest.mark.parametrize("number", [-1, 256, 10**6])
def test_a_signal_is_a_byte(number):
    with pytest.raises(ValueError, match=f"not {number}"):
        signal_number(number)
    assert [signal_number(0), signal_number(255)] == [0, 255]


@pytest.mark.parametrize(
    "call",
    [
        lambda: signal_number("1"), lambda: signal_number(True), lambda: signal_number(1.0), lambda: target_of(1),
        lambda: seconds_of("1"), lambda: seconds_of(True), lambda: iterations_of(1.5), lambda: path_of(3),
        lambda: cron_fields_of((1, 2, 3, 4, "5")), lambda: Registry().register(1, "", 5),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_a_type_error_that_says_what_came(call):
    with pytest.raises(TypeError, match="came"):
        call()


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("nan"), float("inf")])
def test_a_timer_that_would_never_rest_or_never_fire_is_refused(seconds):
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        seconds_of(seconds)
    assert seconds_of(0.5) == 0.5


@pytest.mark.parametrize(
    "fields", [(60, 0, 1, 1, 0), (0, 24, 1, 1, 0), (0, 0, 0, 1, 0), (0, 0, 1, 13, 0), (0, 0, 1, 1, 8)]
)
def test_a_cron_that_would_never_come_is_refused(fields):
    with pytest.raises(ValueError, match="of a cron is to be from"):
        cron_fields_of(fields)
    assert cron_fields_of((-60, -24, -31, -12, -7)) == (-60, -24, -31, -12, -7)


def test_a_handler_that_is_registered_again_replaces_the_one_before():
    registry = Registry()
    registry.register(1, "", handler)
    registry.register(1, "workers", print)
    assert list(registry.texts()) == ['[["signal", 1, "workers"]]']


def test_the_same_entry_is_there_once_and_a_signal_has_one_timer():
    registry = Registry()
    for seconds in (5.0, 5.0, 7.0):
        registry.add("timer", 1, seconds, 0)
    registry.add("file", 1, "/a")
    registry.add("file", 1, "/a")
    registry.add("file", 1, "/b")
    assert list(registry.entries) == [("timer", 1, 7.0, 0), ("file", 1, "/a"), ("file", 1, "/b")]


def test_registering_without_end_is_refused():
    registry = Registry()
    for number in range(MAX_ENTRIES):
        registry.add("file", 1, f"/{number}")
    registry.add("file", 1, "/0")
    with pytest.raises(ValueError, match="not in each request"):
        registry.add("file", 1, "/more")


def test_all_that_may_be_registered_is_told_in_texts_that_fit_into_packets():
    registry = Registry()
    for number in range(256):
        registry.register(number, "workers", handler)
    for number in range(MAX_ENTRIES):
        registry.add("file", 1, f"/{'long' * 500}/{number}")
    texts = list(registry.texts())
    assert max(map(len, texts)) <= TEXT_BYTES + 5000
    entries = [entry for text in texts for entry in entries_of(text)]
    assert len(entries) == 256 + MAX_ENTRIES
    assert all(json.loads(text) for text in texts)
