"""decode_vars and its neighbours: what one packet leaves behind for the next must not change what the next one says."""

import oracle
import pytest

from uwsgiproto import (
    BadBlock,
    ProtocolError,
    TooManyVariables,
    decode_pairs,
    decode_vars,
    encode_pairs,
    merge_pairs,
    pairs,
)

USUAL = {"QUERY_STRING": "", "REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "example.test"}


def decoded(block: bytes, max_vars: int = 1000) -> dict[str, str]:
    return decode_vars(block, 0, len(block), max_vars)


@pytest.fixture(params=["after the usual packet", "after another packet"])
def seen_before(request: pytest.FixtureRequest) -> None:
    """Enough packets of one layout for the reader to expect it again."""
    usual = USUAL if request.param == "after the usual packet" else {"SOMETHING": "else"}
    for _ in range(20):
        assert decoded(encode_pairs(usual)) == usual


pytestmark = pytest.mark.usefixtures("seen_before")


def test_the_block_may_stand_anywhere_in_the_bytes() -> None:
    block = encode_pairs(USUAL)
    assert decode_vars(b"head" + block + b"\x00tail", 4, 4 + len(block)) == USUAL


def test_a_block_that_is_not_all_there_is_refused_even_where_it_ends_between_two_pairs() -> None:
    block = encode_pairs(USUAL)
    for decode in (decode_vars, decode_pairs):
        with pytest.raises(BadBlock, match=f"only {len(block)} of the {len(block) + 6} bytes"):
            decode(block, 0, len(block) + 6)


def test_other_values_under_the_same_keys() -> None:
    longer = {key: value + "x" * 300 for key, value in USUAL.items()}
    emptied = dict.fromkeys(USUAL, "")
    assert decoded(encode_pairs(longer)) == longer
    assert decoded(encode_pairs(emptied)) == emptied


def test_another_key_of_the_same_length() -> None:
    others = {"QUERY_STRONG": "", "REQUEST_METHOS": "GET", "PATH_INFO": "/", "HTTP_TOST": "example.test"}
    assert decoded(encode_pairs(others)) == others


def test_a_long_value_that_looks_like_pairs_is_a_value() -> None:
    hidden = encode_pairs({"REMOTE_USER": "admin", "FILL": "x" * 228})
    assert len(hidden) == 256  # so that the low byte of the value's length ends right before it
    for key in USUAL:
        variables = USUAL | {key: "abcdef" + hidden.decode("latin-1")}
        assert decoded(encode_pairs(variables)) == variables


def test_a_long_key_does_not_make_an_empty_one_acceptable() -> None:
    long = {"K" * 256: "v"}
    for _ in range(20):
        assert decoded(encode_pairs(long)) == long
    with pytest.raises(BadBlock, match="the key of variable 1 is empty"):
        decoded(b"\x00\x00" + b"K" * 256 + b"\x01\x00v")


def test_what_is_remembered_is_the_keys_and_never_a_value() -> None:
    variables = USUAL | {"HTTP_AUTHORIZATION": "secret"}
    for _ in range(20):
        assert decoded(encode_pairs(variables)) == variables
    layout = pairs._memory.layout
    assert [key for _, _, key in layout] == list(variables)
    assert "secret" not in repr(layout)


def test_a_hostile_packet_is_not_remembered_in_full() -> None:
    variables = {f"V{number}": "" for number in range(1000)}
    for _ in range(20):
        assert decoded(encode_pairs(variables)) == variables
    assert len(pairs._memory.layout) == 128


def test_the_same_keys_in_another_order() -> None:
    turned = dict(reversed(USUAL.items()))
    assert list(decoded(encode_pairs(turned)).items()) == list(turned.items())


def test_fewer_keys_more_keys_and_none() -> None:
    fewer = {"QUERY_STRING": "", "REQUEST_METHOD": "GET"}
    more = USUAL | {"HTTP_ACCEPT": "*/*", "HTTP_TE": "trailers"}
    assert decoded(encode_pairs(fewer)) == fewer
    assert decoded(encode_pairs(more)) == more
    assert decoded(b"") == {}


def test_a_key_repeated_behind_the_usual_ones_is_joined_or_refused() -> None:
    usual = list(USUAL.items())
    assert decoded(encode_pairs([*usual, ("HTTP_HOST", "b")]))["HTTP_HOST"] == "example.test, b"
    with pytest.raises(ProtocolError):
        decoded(encode_pairs([*usual, ("PATH_INFO", "/admin")]))
    with pytest.raises(ProtocolError):
        decoded(encode_pairs([*usual, ("wsgi.input", "x")]))


def test_every_block_cut_short_or_prolonged_is_judged_as_the_oracle_does() -> None:
    block = encode_pairs(USUAL)
    for candidate in [block[:end] for end in range(len(block))] + [block + b"\x00" * more for more in range(1, 7)]:
        try:
            verdict = decoded(candidate)
        except BadBlock:
            verdict = None
        assert verdict == oracle.variables_of(candidate)


def test_the_limit_holds_for_a_usual_packet_too() -> None:
    block = encode_pairs(USUAL)
    assert decoded(block, max_vars=4) == USUAL
    for limit in range(4):
        with pytest.raises(TooManyVariables):
            decoded(block, max_vars=limit)


def test_repeated_keys_count_towards_the_limit() -> None:
    block = encode_pairs([("A", "1"), ("A", "2"), ("B", "3")])
    assert decoded(block, max_vars=3) == {"A": "2", "B": "3"}
    with pytest.raises(TooManyVariables):
        decoded(block, max_vars=2)


def test_a_value_that_names_wsgi_is_no_reserved_key() -> None:
    variables = {"DOCUMENT_ROOT": "/srv/wsgi.d", "wsgi": "x", "HTTP_WSGI.X": "y"}
    for _ in range(20):
        assert decoded(encode_pairs(variables)) == variables


def test_pairs_keep_what_a_dict_cannot() -> None:
    repeated = [("A", "1"), ("wsgi.x", "2"), ("A", "3")]
    block = encode_pairs(repeated)
    assert decode_pairs(block, 0, len(block)) == repeated


def test_merging_keeps_the_order_of_first_appearance() -> None:
    repeated = [("HTTP_B", "1"), ("A", "2"), ("HTTP_B", "3")]
    assert list(merge_pairs(repeated).items()) == [("HTTP_B", "1, 3"), ("A", "2")]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"": "x"}, "must not be empty"),
        ({"A": "x" * 65536}, "65536 bytes, where 65535 are possible"),
        ({"K" * 65536: ""}, "65536 bytes"),
        ({"A": "€"}, "latin-1"),
    ],
)
def test_what_the_format_cannot_hold_is_not_encoded(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_pairs(variables)
