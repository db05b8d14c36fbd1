"""Which worker is told of a signal: a pure function."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from corelet.process.routing import Candidate, receivers


def workers(*pids: int, **how) -> list[Candidate]:
    return [Candidate(pid=100 + worker, worker=worker, **how) for worker in pids]


def test_workers_is_one_process_on_each_seat():
    assert receivers("workers", workers(1, 2, 3)) == (101, 102, 103)


def test_a_seat_is_that_process():
    assert receivers("worker2", workers(1, 2, 3)) == (102,)
    assert receivers("worker4", workers(1, 2, 3)) == ()


def test_worker_is_the_lowest_seat_where_nothing_else_decides():
    assert receivers("worker", workers(3, 1, 2)) == (101,)


def test_worker_is_who_had_the_last_one_so_that_handlers_run_one_after_another():
    assert receivers("worker", workers(1, 2, 3), last=102) == (102,)


def test_worker_is_never_one_that_blocks_while_another_does_not():
    candidates = [Candidate(101, 1, blocked=True), Candidate(102, 2, in_use=50)]
    assert receivers("worker", candidates, last=101) == (102,)
    assert receivers("worker", candidates[:1]) == (101,)


def test_worker_is_the_least_busy():
    assert receivers("worker", [Candidate(101, 1, in_use=2), Candidate(102, 2, in_use=1)]) == (102,)


def test_worker_is_first_of_all_who_waits_for_the_signal():
    candidates = [Candidate(101, 1), Candidate(102, 2, waits=True, in_use=9)]
    assert receivers("worker", candidates, last=101) == (102,)


def test_two_on_one_seat_are_one_receiver_the_one_of_the_generation_in_power_or_the_youngest():
    coming = Candidate(201, 1, current=False, born=9.0)
    assert receivers("workers", [Candidate(101, 1, born=1.0), coming]) == (101,)
    assert receivers("workers", [Candidate(101, 1, born=1.0), Candidate(201, 1, born=2.0)]) == (201,)
    assert receivers("worker1", [coming]) == (201,)


def test_nobody_is_no_receiver():
    assert [receivers(target, []) for target in ("worker", "workers", "worker1")] == [(), (), ()]


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        pid=st.integers(1, 10**6),
        worker=st.integers(1, 4),
        current=st.booleans(),
        born=st.floats(0, 100),
        waits=st.booleans(),
        blocked=st.booleans(),
        in_use=st.integers(0, 100),
    ),
    unique_by=lambda each: each.pid,
    max_size=10,
)


@given(CANDIDATES, st.integers(0, 10))
def test_at_random_a_signal_for_one_worker_goes_to_exactly_one_and_for_all_to_each_seat_once(candidates, last):
    seats = {each.worker for each in candidates}
    assert len(receivers("worker", candidates, last)) == min(1, len(seats))
    pids = receivers("workers", candidates, last)
    assert sorted(each.worker for each in candidates if each.pid in pids) == sorted(seats)
    one = receivers("worker", candidates, last)
    assert set(one) <= set(pids)
    chosen = [each for each in candidates if each.pid in pids]
    if any(not each.blocked and not each.waits for each in chosen) and not any(each.waits for each in chosen):
        assert all(not each.blocked for each in chosen if each.pid in one)
    for order in itertools.islice(itertools.permutations(candidates), 5):
        if len({(each.worker, each.current, each.born) for each in order}) == len(order):
            assert receivers("worker", order, last) == one
