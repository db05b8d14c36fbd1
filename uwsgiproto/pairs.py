"""The block of variables: bytes <-> str pairs, with two ways to read it that must agree.

`decode_vars` is the request's hot path, where tenths of a microsecond are argued for (the figures: see bench).
`decode_pairs` keeps repeated keys, words every refusal, and is where decode_vars goes whenever something is out of the
ordinary. The layout of the block is drawn in packet.py.

Keys and values are latin-1 str, the "native strings" of PEP 3333: each character is one byte of the wire.

Never a best effort: a block that its lengths do not fill to the last byte is refused as a whole. Taking what is there
and calling the rest absent is the mistake behind CVE-2020-11984 and CVE-2021-36160 (mod_proxy_uwsgi) and CVE-2021-40346
(HAProxy).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from uwsgiproto.errors import BadBlock, RepeatedVariable, ReservedVariable, TooManyVariables

HEADER_BYTES: Final = 4
MAX_BLOCK_BYTES: Final = 0xFFFF  # datasize is a u16, and so is the length of an item
MAX_VARS: Final = 1000  # uWSGI stops at 128 keys and values, which a browser behind two proxies comes near to

# Two answers to "which resource" or "how long is the body" let a request past a filter that read the other one. nginx
# sends these once, unless a stray `uwsgi_param` stands beside `include uwsgi_params`.
UNREPEATABLE: Final = frozenset({"REQUEST_METHOD", "PATH_INFO", "CONTENT_LENGTH"})

# What the server and its extensions put into the environ; from the wire it would be believed to be theirs.
RESERVED_PREFIXES: Final = ("wsgi.", "uwsgi.", "x-wsgiorg.")
_IN_EVERY_RESERVED: Final = "wsgi"

# One entry for each pair of a packet seen before, in its order: length and key as they stand in the block, how long
# that is, and the key.
_Layout = tuple[tuple[str, int, str], ...]

_MISSES_BEFORE_LEARNING: Final = 8
_MAX_LAYOUT: Final = 128  # bounds what a hostile packet can make us remember


class _Memory:
    """The order of the keys in a recent packet; no values, so nothing of one request is kept for another."""

    __slots__ = ("layout", "misses")

    def __init__(self) -> None:
        self.layout: _Layout = ()
        self.misses = 0

    def note(self, variables: dict[str, str]) -> None:
        """A good packet had another layout. Take it over, but only now and then.

        Learning costs more than a hit gains, and clients with different headers alternate. What nginx's configuration
        sends comes first and is the same for all of them, so a layout helps even where its tail does not fit.
        """
        self.misses += 1
        if self.misses >= _MISSES_BEFORE_LEARNING or not self.layout:
            self.misses = 0
            self.layout = tuple((_prefixed(key), 2 + len(key), key) for key in list(variables)[:_MAX_LAYOUT])


_memory = _Memory()


def decode_vars(data: bytes, start: int, end: int, max_vars: int = MAX_VARS) -> dict[str, str]:
    """The variables of the block `data[start:end]`, in the order of the wire; what follows `end` is not looked at.

    A repeated HTTP_* variable is joined (nginx before 1.23 sends a repeated header field so): with ", " as RFC 9110
    5.3 says, HTTP_COOKIE with "; " as RFC 9113 8.2.3 says. Of other repeated variables the last one counts, as in
    uWSGI, so that a `uwsgi_param` can replace one of the included file.

    Raises BadBlock for lengths that do not fill the block and for an empty key, and its subclasses TooManyVariables
    (more than `max_vars` pairs), RepeatedVariable and ReservedVariable.
    """
    block = data[start:end]
    text = str(block, "latin-1")  # one decode for all: slicing a str is cheaper than decoding each item
    size = end - start
    variables: dict[str, str] = {}
    pos = 0
    try:
        # As long as the keys come as they did before, one comparison replaces reading a length, making a key and
        # hashing it. The keys of a layout differ and none is empty or reserved: nothing is left to check.
        for prefixed_key, width, key in _memory.layout:
            key_end = pos + width
            if text[pos:key_end] != prefixed_key:
                break
            value_at = key_end + 2
            pos = value_at + block[key_end]
            if block[key_end + 1]:  # seldom: a branch is cheaper than the arithmetic
                pos += block[key_end + 1] << 8
            variables[key] = text[value_at:pos]
        if pos == size and len(variables) <= max_vars:
            return variables
        for count in range(len(variables), max_vars + 1):  # noqa: B007 - the limit, and the count, in one
            if pos >= size:
                break
            key_at = pos + 2
            key_end = key_at + (block[pos] | block[pos + 1] << 8)
            value_at = key_end + 2
            pos = value_at + (block[key_end] | block[key_end + 1] << 8)
            variables[text[key_at:key_end]] = text[value_at:pos]
        else:
            count = -1  # more than allowed
    except IndexError:  # a length would stand beyond the block's end
        count = -1
    if (
        pos != size
        or count != len(variables)
        or "" in variables
        or (_IN_EVERY_RESERVED in text and any(key.startswith(RESERVED_PREFIXES) for key in variables))
    ):
        return merge_pairs(decode_pairs(data, start, end, max_vars))
    _memory.note(variables)
    return variables


def decode_pairs(data: bytes, start: int, end: int, max_vars: int = MAX_VARS) -> list[tuple[str, str]]:
    """The pairs of the block `data[start:end]` as they stand there, repeated and reserved keys included.

    Raises BadBlock for lengths that do not fill the block and for an empty key, TooManyVariables for more than
    `max_vars` pairs.
    """
    block = data[start:end]
    text = str(block, "latin-1")
    size = len(block)
    if size != end - start:
        raise BadBlock(f"only {size} of the {end - start} bytes of the block are there")
    pairs: list[tuple[str, str]] = []
    pos = 0
    while pos < size:
        if len(pairs) == max_vars:
            raise TooManyVariables(f"the block of variables holds more than the {max_vars} allowed")
        key_at = pos + 2
        if key_at > size:
            raise _cut_short(pairs, "key", size)
        key_end = key_at + (block[pos] | block[pos + 1] << 8)
        if key_end > size:
            raise _too_long(pairs, "key", key_end, size)
        if key_end == key_at:
            raise BadBlock(f"the key of variable {len(pairs) + 1} is empty")
        value_at = key_end + 2
        if value_at > size:
            raise _cut_short(pairs, "value", size)
        pos = value_at + (block[key_end] | block[key_end + 1] << 8)
        if pos > size:
            raise _too_long(pairs, "value", pos, size)
        pairs.append((text[key_at:key_end], text[value_at:pos]))
    return pairs


def merge_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value for each key, by the rules of decode_vars. Raises RepeatedVariable and ReservedVariable."""
    variables: dict[str, str] = {}
    for key, value in pairs:
        if key.startswith(RESERVED_PREFIXES):
            raise ReservedVariable(f"the variable {key[:80]!a} belongs to the server and must not come from outside")
        if key not in variables:
            variables[key] = value
        elif key in UNREPEATABLE:
            raise RepeatedVariable(f"the variable {key} came more than once")
        elif key == "HTTP_COOKIE":
            variables[key] += "; " + value
        elif key.startswith("HTTP_"):
            variables[key] += ", " + value
        else:
            variables[key] = value
    return variables


def encode_pairs(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """The block that holds `pairs`.

    Raises ValueError for what the format cannot hold: an empty key, an item above 65,535 bytes, a character beyond
    latin-1. (That the block itself fits a header is seen where there is one.)
    """
    out = bytearray()
    for key, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
        if not key:
            raise ValueError("the key of a variable must not be empty")
        for item in (key, value):
            encoded = item.encode("latin-1")
            if len(encoded) > MAX_BLOCK_BYTES:
                raise ValueError(f"variable {key[:80]!a}: {len(encoded)} bytes, where {MAX_BLOCK_BYTES} are possible")
            out += len(encoded).to_bytes(2, "little")
            out += encoded
    return bytes(out)


def _prefixed(key: str) -> str:
    """The key with its length before it, each character one byte of the wire."""
    return chr(len(key) & 0xFF) + chr(len(key) >> 8) + key


def _cut_short(pairs: list[tuple[str, str]], what: str, size: int) -> BadBlock:
    return BadBlock(f"the block of {size} bytes ends before the length of the {what} of variable {len(pairs) + 1}")


def _too_long(pairs: list[tuple[str, str]], what: str, end: int, size: int) -> BadBlock:
    return BadBlock(f"the {what} of variable {len(pairs) + 1} ends at byte {end} of a block of {size} bytes")
