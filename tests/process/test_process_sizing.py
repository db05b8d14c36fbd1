"""cheaper: the number of workers follows their busyness, within its bounds and without going to and fro."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelet.base.config import Config
from corelet.base.errors import ConfigError
from corelet.process.sizing import Policy, Sizing, judge

POLICY = Policy(lowest=1, highest=8, initial=2, step=2, cycle_seconds=3, busyness_min=25, busyness_max=50, multiplier=4)


def cycles(policy, sizing, *busyness):
    """The number of workers after each of these cycles, in which every worker is so busy."""
    numbers = []
    for percent in busyness:
        sizing = judge(policy, sizing, [percent] * sizing.wanted, sizing.judged_at + policy.cycle_seconds)
        numbers.append(sizing.wanted)
    return numbers


# ---- judging ----


def test_nothing_changes_before_the_cycle_is_over():
    sizing = POLICY.begin(100)
    assert judge(POLICY, sizing, [100, 100], 102.9) is sizing
    assert judge(POLICY, sizing, [100, 100], 103) == Sizing(4, 0, 103)


def test_above_the_maximum_a_step_of_workers_is_added_up_to_the_highest():
    assert cycles(POLICY, Sizing(2, 0, 0), 50.1, 100, 51, 100) == [4, 6, 8, 8]


def test_at_the_maximum_and_at_the_minimum_nothing_is_done():
    assert cycles(POLICY, Sizing(4, 0, 0), *[50, 25] * 10) == [4] * 20


def test_below_the_minimum_one_goes_after_as_many_cycles_as_the_multiplier_down_to_the_lowest():
    assert cycles(POLICY, Sizing(3, 0, 0), *[24.9] * 4, *[0] * 10) == [3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_the_average_counts_and_not_one_busy_worker():
    assert judge(POLICY, Sizing(4, 0, 0), [100, 60, 0, 0], 3).wanted == 4
    assert judge(POLICY, Sizing(4, 0, 0), [100, 100, 20, 0], 3).wanted == 6


def test_a_busy_cycle_begins_the_count_of_idle_ones_anew():
    assert cycles(POLICY, Sizing(2, 0, 0), 0, 0, 0, 60, 0, 0, 0, 0) == [2, 2, 2, 4, 4, 4, 4, 3]


def test_a_cycle_between_minimum_and_maximum_is_not_counted():
    assert cycles(POLICY, Sizing(2, 0, 0), 0, 0, 0, 30, 30, 0) == [2, 2, 2, 2, 2, 1]


def test_three_cycles_between_minimum_and_maximum_begin_the_count_anew():
    assert cycles(POLICY, Sizing(2, 0, 0), 0, 0, 0, 30, 30, 30, 0, 0, 0, 0) == [2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    assert cycles(POLICY, Sizing(2, 0, 0), 0, 0, 30, 30, 0, 30, 30, 0) == [2, 2, 2, 2, 2, 2, 2, 1]


def test_a_worker_that_is_still_starting_counts_as_idle():
    assert judge(POLICY, Sizing(4, 0, 0), [100, 100], 3).wanted == 4
    assert judge(POLICY, Sizing(4, 0, 0), [100, 100, 1], 3).wanted == 6


def test_while_no_worker_is_ready_nothing_is_judged():
    assert judge(POLICY, Sizing(4, 2, 0, 1), [], 3) == Sizing(4, 2, 3, 1)


def test_more_workers_than_wanted_are_averaged_over_all_of_them():
    """During a reload two generations are ready."""
    assert judge(POLICY, Sizing(2, 0, 0), [60, 60, 30, 30], 3).wanted == 2
    assert judge(POLICY, Sizing(2, 0, 0), [60, 60, 60, 60], 3).wanted == 4


def test_one_is_not_taken_away_if_the_others_would_have_to_bring_it_back():
    policy = Policy(1, 8, 2, busyness_min=40, busyness_max=50, multiplier=2)
    assert cycles(policy, Sizing(2, 0, 0), *[39] * 10) == [2] * 10
    assert cycles(policy, Sizing(2, 0, 0), 39, 39, 39, 20) == [2, 2, 2, 1]


# ---- at random ----


@st.composite
def policies(draw):
    lowest = draw(st.integers(1, 8))
    highest = draw(st.integers(lowest, 16))
    maximum = draw(st.integers(1, 100))
    return Policy(
        lowest,
        highest,
        draw(st.integers(lowest, highest)),
        step=draw(st.integers(1, 20)),
        cycle_seconds=draw(st.floats(0.1, 60)),
        busyness_min=draw(st.integers(0, maximum - 1)),
        busyness_max=maximum,
        multiplier=draw(st.integers(1, 12)),
    )


PERCENT = st.floats(0, 100)


def following(policy, sizing):
    """When the next cycle is over; half a cycle later than due, so that no rounding decides."""
    return sizing.judged_at + 1.5 * policy.cycle_seconds


@given(policies(), st.lists(st.tuples(st.lists(PERCENT, max_size=20), st.floats(0, 100)), max_size=40))
def test_the_bounds_are_never_left_and_a_step_is_never_exceeded(policy, looks):
    sizing, now = policy.begin(0), 0.0
    for busyness, later in looks:
        now += later
        before, sizing = sizing, judge(policy, sizing, busyness, now)
        assert policy.lowest <= sizing.wanted <= policy.highest
        assert -1 <= sizing.wanted - before.wanted <= policy.step
        assert 0 <= sizing.below <= policy.multiplier


@given(policies(), st.integers(0, 30), PERCENT)
def test_a_number_that_lies_outside_is_brought_back(policy, wanted, percent):
    sizing = Sizing(wanted, 0, 0)
    assert policy.lowest <= judge(policy, sizing, [percent], following(policy, sizing)).wanted <= policy.highest


@given(policies(), st.data())
def test_a_busyness_between_minimum_and_maximum_changes_nothing(policy, data):
    sizing = policy.begin(0)
    for _ in range(3 * policy.multiplier):
        percent = data.draw(st.floats(policy.busyness_min, policy.busyness_max), label="percent")
        sizing = judge(policy, sizing, [percent] * sizing.wanted, following(policy, sizing))
        assert sizing.wanted == policy.initial


@given(policies(), st.floats(0, 20))
def test_under_a_steady_load_the_number_comes_to_rest(policy, load):
    """`load` is how many workers it would keep busy all the time; it is shared among those that there are."""
    sizing = policy.begin(0)
    numbers = [sizing.wanted]
    for _ in range(20 * policy.multiplier + 20):
        share = min(100.0, 100 * load / sizing.wanted)
        sizing = judge(policy, sizing, [share] * sizing.wanted, following(policy, sizing))
        numbers.append(sizing.wanted)
    turned = next((place for place in range(1, len(numbers)) if numbers[place] < numbers[place - 1]), len(numbers))
    assert numbers[:turned] == sorted(numbers[:turned])
    assert numbers[turned:] == sorted(numbers[turned:], reverse=True)
    assert len(set(numbers[-policy.multiplier - 1 :])) == 1


@given(policies().filter(lambda policy: policy.busyness_max < 100))
def test_under_full_load_the_number_grows_to_the_highest(policy):
    sizing = policy.begin(0)
    for _ in range(policy.highest):
        sizing = judge(policy, sizing, [100.0] * sizing.wanted, following(policy, sizing))
    assert sizing.wanted == policy.highest


@given(policies().filter(lambda policy: policy.busyness_min > 0))
def test_without_load_the_number_falls_to_the_lowest(policy):
    sizing = policy.begin(0)
    for _ in range(policy.highest * policy.multiplier):
        sizing = judge(policy, sizing, [0.0] * sizing.wanted, following(policy, sizing))
    assert sizing.wanted == policy.lowest


# ---- the policy ----


def test_the_policy_is_what_the_options_say():
    assert Policy.from_config(
        Config(
            processes=8, cheaper=2, cheaper_initial=4, cheaper_step=3, cheaper_overload=5.0, cheaper_busyness_max=70,
            cheaper_busyness_min=20, cheaper_busyness_multiplier=30,
        )
    ) == Policy(2, 8, 4, 3, 5.0, 20, 70, 30)  # fmt: skip


def test_the_defaults_are_those_of_uwsgi():
    policy = Policy.from_config(Config(processes=8, cheaper=2))
    assert policy == Policy(2, 8, 2, 1, 3.0, 25, 50, 10)
    assert policy.is_adaptive


def test_without_cheaper_the_number_is_always_that_of_processes():
    policy = Policy.from_config(Config(processes=4))
    assert (policy.lowest, policy.highest, policy.initial) == (4, 4, 4)
    assert not policy.is_adaptive
    assert cycles(policy, policy.begin(0), 100, *[0] * 30) == [4] * 31


def test_it_begins_with_the_initial_number_and_a_whole_cycle():
    assert POLICY.begin(7.0) == Sizing(2, 0, 7.0)


@pytest.mark.parametrize(("asked", "initial"), [(1, 2), (9, 8)])
def test_an_initial_number_outside_the_bounds_is_moved_with_a_warning(asked, initial, caplog):
    policy = Policy.from_config(Config(processes=8, cheaper=2, cheaper_initial=asked))
    assert policy.initial == initial
    assert caplog.messages == [
        f"cheaper-initial {asked} is not between cheaper and processes; starting with {initial} workers"
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"processes": 4, "cheaper": 4}, r"--cheaper: expected fewer than processes \(4\); got 4"),
        ({"processes": 4, "cheaper": 5}, r"--cheaper: expected fewer than processes \(4\); got 5"),
        (
            {"processes": 4, "cheaper": 1, "cheaper_busyness_min": 50},
            r"--cheaper-busyness-min: expected less than cheaper-busyness-max \(50\); got 50",
        ),
    ],
)
def test_bounds_that_exclude_each_other_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        Policy.from_config(Config(**options))
