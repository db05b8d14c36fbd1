"""What cache2 and the old options say: uWSGI's keys, its defaults, and clear words for everything else."""

from __future__ import annotations

import pytest

from corelet.base.argv import configure
from corelet.base.cache_spec import CacheSpec, parse_cache2
from corelet.base.errors import ConfigError


def test_defaults_are_uwsgis():
    spec, notes = parse_cache2("name=a,items=10")
    assert spec == CacheSpec(name="a", items=10, blocks=10, blocksize=65536, keysize=2048)
    assert notes == ()
    assert spec.largest_value_bytes == 65536


@pytest.mark.parametrize("key", ["items", "max_items", "maxitems"])
def test_uwsgis_other_spellings_are_understood(key):
    assert parse_cache2(f"name=a,{key}=10,key_size=5,lru=1,lazy=1")[0] == CacheSpec(
        name="a", items=10, blocks=10, keysize=5, purge_lru=True
    )


def test_a_real_configuration():
    spec, _ = parse_cache2("name=searxcache,items=2000,blocks=2000,blocksize=4096,bitmap=1")
    assert (spec.items, spec.blocks, spec.blocksize, spec.bitmap) == (2000, 2000, 4096, True)
    assert spec.largest_value_bytes == 2000 * 4096


def test_what_has_no_effect_is_noted():
    _, notes = parse_cache2("name=Service2,items=64,store,hashsize=100,lastmod=1")
    assert [note.split(" has ")[0].split(" without ")[0] for note in notes] == ["store", "hashsize", "lastmod"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("items=10", "a cache needs a name"),
        ("Service2,items=4", "'Service2' is no key of cache2"),
        ("name=a", "cache a needs its greatest number of items"),
        ("name=a,items=0", "items: expected a whole number, 1 or more; got '0'"),
        ("name=a,items=many", "items: expected a whole number, 1 or more; got 'many'"),
        ("name=a,items=", "items needs a value"),
        ("name=a,itmes=4", "did you mean items?"),
        ("name=a,items=4,block_size=3", "did you mean blocksize?"),
        ("name=a,items=10,blocks=5", "expected as many blocks as items, or more; got 5 for 10 items"),
        ("name=a,items=4,bitmap=maybe", "bitmap: expected 1 or 0; got 'maybe'"),
        ("name=a,items=4,store=/tmp/a", "store=/tmp/a: this version keeps no cache in a file"),
        ("name=a,items=4,udp_servers=:1", "backend=redis://HOST/0 shares one"),
        ("name=a,items=4,backend=memcached://x", "backend: expected redis://HOST:PORT/DB"),
        ("name=a@b,items=4", "a name with @ would mean a cache of another machine"),
        ("name=a,backend=redis://x/0,timeout=0", "timeout: expected a number of seconds above 0"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?").replace("(", r"\(")):
        parse_cache2(text)


def test_redis_needs_no_items():
    spec, _ = parse_cache2("name=a,backend=redis://:p@h:1/0?health_check_interval=3,timeout=0.25")
    assert (spec.items, spec.backend, spec.timeout_seconds) == (0, "redis://:p@h:1/0?health_check_interval=3", 0.25)


def test_the_command_line_gathers_caches_mistakes_and_notes():
    resolved = configure(["--cache", "7", "--cache2", "name=a,items=1,hashsize=2", "--cache2", "name=b,items=2"])
    assert [(spec.name, spec.items) for spec in resolved.config.caches] == [("default", 7), ("a", 1), ("b", 2)]
    assert "cache2 a: hashsize has no effect: the store has its own index" in resolved.notes
    with pytest.raises(ConfigError) as caught:
        configure(["--cache2", "name=a", "--cache2", "name=b,items=1", "--cache2", "name=b,items=1"])
    assert "cache2 name=a: cache a needs" in str(caught.value)
    assert "there is a cache b already" in str(caught.value)
    with pytest.raises(ConfigError, match="--cache-store x: this version keeps no cache in a file"):
        configure(["--cache", "7", "--cache-store", "x"])
