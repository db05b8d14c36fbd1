"""The life of a worker process is a table, and the picture in ARCHITECTURE.md is that table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from corelet.process.life import LIFE, OVER, Event, State, after, diagram

ARCHITECTURE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"


def reachable() -> set[State]:
    found = {State.STARTING}
    while True:
        more = {then for (state, _), then in LIFE.items() if state in found} - found
        if not more:
            return found
        found |= more


def test_each_state_can_be_reached_from_the_fork():
    assert reachable() == set(State)


def test_what_is_over_has_no_way_out():
    assert {State.STOPPED, State.FAILED, State.KILLED} == OVER
    assert not OVER & {state for state, _ in LIFE}


def test_what_is_not_over_can_end():
    for state in set(State) - OVER:
        assert OVER & {then for (begin, _), then in LIFE.items() if begin is state}


def test_every_event_is_used():
    assert {event for _, event in LIFE} == set(Event)


def test_no_row_leads_nowhere():
    assert all(state is not then for (state, _), then in LIFE.items())


def test_nobody_becomes_ready_twice_or_after_being_told_to_end():
    assert [state for (state, _), then in LIFE.items() if then is State.READY] == [State.STARTING]


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_an_event_without_a_row_changes_nothing(state, event):
    assert after(state, event) is LIFE.get((state, event), state)


def test_a_life_as_it_should_be():
    state = State.STARTING
    for event in (Event.IS_READY, Event.IS_TOLD, Event.ENDS):
        state = after(state, event)
    assert state is State.STOPPED


def test_the_diagram_has_one_arrow_for_each_row_and_each_end():
    arrows = re.findall(r"^    (\S+) --> (\S+?)(?:: (.+))?$", diagram(), re.MULTILINE)
    rows = [(state.name, then.name, event.value) for (state, event), then in LIFE.items()]
    assert arrows == [
        ("[*]", "STARTING", "fork"),
        *rows,
        *((state.name, "[*]", "") for state in State if state in OVER),
    ]
    assert diagram().startswith("stateDiagram-v2\n")


def test_architecture_shows_the_table_as_it_is():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert f"```mermaid\n{diagram()}```\n" in text, "ARCHITECTURE.md shows another table: put life.diagram() there"
