"""The mechanism under the option table: one declaration, read by its kind."""

from dataclasses import dataclass

import pytest

from corelet.base.errors import ConfigError
from corelet.base.option import Kind, Verdict, option, options_of


@dataclass(frozen=True, kw_only=True)
class First:
    """First things.

    More about them.
    """

    some_flag: bool = option(kind=Kind.FLAG, help="a flag")
    list_: tuple[str, ...] = option("list", "items", kind=Kind.LIST, short="x", help="a list")


@dataclass(frozen=True, kw_only=True)
class Whole(First):
    """Whole."""

    depth: int = option(kind=Kind.INTEGER, default=3, minimum=2, maximum=4, help="a number", accepted="it is fixed")


def rows():
    return {row.field: row for row in options_of(Whole)}


def test_the_table_follows_the_fields_in_their_order():
    assert [row.field for row in options_of(Whole)] == ["some_flag", "list_", "depth"]


def test_a_name_comes_from_the_field_unless_names_are_given():
    assert rows()["some_flag"].names == ("some-flag",)
    assert rows()["list_"].names == ("list", "items")
    assert rows()["list_"].name == "list"


def test_a_group_is_the_first_line_of_the_declaring_class():
    assert [row.group for row in options_of(Whole)] == ["First things", "First things", "Whole"]


def test_an_accepted_option_keeps_its_reason():
    assert (rows()["depth"].verdict, rows()["depth"].why) == (Verdict.ACCEPTED, "it is fixed")
    assert rows()["some_flag"].verdict is Verdict.WORKS


def test_defaults_are_those_of_the_dataclass():
    assert Whole() == Whole(some_flag=False, list_=(), depth=3)


def test_a_range_with_two_ends_is_named():
    assert rows()["depth"].parse("4") == 4
    with pytest.raises(ConfigError, match="expected a whole number from 2 to 4; got 5"):
        rows()["depth"].parse("5")


def test_blanks_around_a_value_are_no_part_of_it():
    assert rows()["depth"].parse(" 3 ") == 3


def test_accepts_says_whether_a_text_is_a_value():
    assert rows()["depth"].accepts("3")
    assert not rows()["depth"].accepts("x")


def test_an_empty_text_is_no_value():
    with pytest.raises(ConfigError, match="got an empty value"):
        rows()["list_"].parse("")
