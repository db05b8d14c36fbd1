"""The packet written down declaratively, for the tests to compare with: slow, and plainly right.

`GreedyRange` takes any error for the end of the pairs, so `Terminated` behind it demands that the block ends there too.
"""

from construct import (
    Check,
    ConstructError,
    FixedSized,
    GreedyRange,
    Int8ul,
    Int16ul,
    PascalString,
    Struct,
    Terminated,
    len_,
    this,
)

Item = PascalString(Int16ul, "latin-1")
Pair = Struct("key" / Item, Check(len_(this.key) > 0), "value" / Item)
Block = Struct("pairs" / GreedyRange(Pair), Terminated)
DeclaredPacket = Struct(
    "modifier1" / Int8ul,
    "datasize" / Int16ul,
    "modifier2" / Int8ul,
    "block" / FixedSized(this.datasize, Block),
)


def pairs_of(block: bytes) -> list[tuple[str, str]] | None:
    """The pairs of the block, None where it is refused."""
    try:
        return [(pair.key, pair.value) for pair in Block.parse(block).pairs]
    except ConstructError:
        return None


def variables_of(block: bytes, max_vars: int = 1000) -> dict[str, str] | None:
    """The variables as BEHAVIOUR promises them, None where the block is refused."""
    pairs = pairs_of(block)
    if pairs is None or len(pairs) > max_vars:
        return None
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    if any(key.split(".")[0] in ("wsgi", "uwsgi", "x-wsgiorg") and "." in key for key in values):
        return None
    if any(len(values.get(key, [])) > 1 for key in ("REQUEST_METHOD", "PATH_INFO", "CONTENT_LENGTH")):
        return None
    separators = {"HTTP_COOKIE": "; "}
    return {
        key: separators.get(key, ", ").join(many) if key.startswith("HTTP_") else many[-1]
        for key, many in values.items()
    }
