"""The table of modifiers: three are served, and every other number is refused by its name."""

import dataclasses

import pytest

from uwsgiproto import MODIFIERS, PING_HEADER, UnsupportedModifier, Verdict, check_header, modifier


def test_only_requests_and_pings_are_served() -> None:
    served = {row.number: row.verdict for row in MODIFIERS.values() if row.verdict is not Verdict.REFUSED}
    assert served == {0: Verdict.REQUEST, 30: Verdict.REQUEST_MOUNTED, 100: Verdict.PING}


@pytest.mark.parametrize("number", range(256))
def test_the_verdict_on_a_header_is_the_tables(number: int) -> None:
    header = bytes([number, 0, 0, 0])
    match modifier(number).verdict:
        case Verdict.REQUEST | Verdict.REQUEST_MOUNTED:
            assert check_header(header) == 0
        case Verdict.PING:
            assert check_header(header) == PING_HEADER
        case Verdict.REFUSED:
            with pytest.raises(UnsupportedModifier, match=f"modifier1 {number} "):
                check_header(header)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MODIFIERS[22] = modifier(0)  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        modifier(22).verdict = Verdict.REQUEST  # type: ignore[misc]
