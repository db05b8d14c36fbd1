"""uwsgi.cache_*: the same calls with the same results in the store of the machine, in Redis, and in uWSGI itself.

The results were recorded from uWSGI 2.0.31. Where a uWSGI is found (see cache_site.py) the calls are made there too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
from concurrent.futures import ThreadPoolExecutor

import pytest
from cache_site import APPLICATION, ask, uwsgi_program, uwsgi_running
from harness import running
from masters import mastered
from redis_server import redis_running

NONE, TRUE = "None", "True"

# Each line is a call, and what it gives. The caches: `first` of 64-byte blocks, and `second` with the defaults.
CALLS = (
    ("uwsgi.cache_get('a')", NONE),
    ("uwsgi.cache_set('a', '1')", TRUE),
    ("uwsgi.cache_get('a')", "b'1'"),
    ("uwsgi.cache_exists('a')", TRUE),
    ("uwsgi.cache_exists('b')", NONE),
    ("uwsgi.cache_set('a', '2')", NONE),
    ("uwsgi.cache_get('a')", "b'1'"),
    ("uwsgi.cache_update('a', b'3')", TRUE),
    ("uwsgi.cache_get(b'a')", "b'3'"),
    ("uwsgi.cache_update('new', b'x\\0y')", TRUE),
    ("uwsgi.cache_get('new')", "b'x\\x00y'"),
    ("sorted(uwsgi.cache_keys())", "[b'a', b'new']"),
    ("uwsgi.cache_del('a')", TRUE),
    ("uwsgi.cache_del('a')", NONE),
    # numbers
    ("uwsgi.cache_num('absent')", "0"),
    ("uwsgi.cache_inc('n')", TRUE),
    ("uwsgi.cache_get('n')", "b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00'"),
    ("uwsgi.cache_num('n')", "1"),
    ("uwsgi.cache_inc('n', 5)", TRUE),
    ("uwsgi.cache_dec('n', 2)", TRUE),
    ("uwsgi.cache_mul('n', 3)", TRUE),
    ("uwsgi.cache_num('n')", "12"),
    ("uwsgi.cache_mul('n')", TRUE),
    ("uwsgi.cache_num('n')", "24"),
    ("uwsgi.cache_div('n', 5)", TRUE),
    ("uwsgi.cache_num('n')", "4"),
    ("uwsgi.cache_div('n')", TRUE),
    ("uwsgi.cache_num('n')", "2"),
    ("uwsgi.cache_dec('n', 100)", TRUE),
    ("uwsgi.cache_num('n')", "-98"),
    ("uwsgi.cache_div('n', 9)", TRUE),
    ("uwsgi.cache_num('n')", "-10"),
    ("uwsgi.cache_div('n', 0)", TRUE),
    ("uwsgi.cache_num('n')", "0"),
    ("uwsgi.cache_clear()", TRUE),
    ("uwsgi.cache_mul('m')", TRUE),
    ("uwsgi.cache_num('m')", "0"),
    ("uwsgi.cache_exists('m')", TRUE),
    ("uwsgi.cache_dec('c')", TRUE),
    ("uwsgi.cache_inc('c', 2**62)", TRUE),
    ("uwsgi.cache_inc('c', 2**62)", TRUE),
    ("uwsgi.cache_num('c')", "9223372036854775807"),
    ("uwsgi.cache_inc('c', 2**63 - 1)", TRUE),
    ("uwsgi.cache_num('c')", "-2"),
    ("uwsgi.cache_inc('c', -3)", TRUE),
    ("uwsgi.cache_num('c')", "-5"),
    ("uwsgi.cache_inc('c', 2**63)", "!OverflowError"),
    ("uwsgi.cache_inc('c', 1.5)", "!TypeError"),
    ("uwsgi.cache_clear()", TRUE),
    ("uwsgi.cache_set('l', '12345678')", TRUE),
    ("uwsgi.cache_num('l')", "4050765991979987505"),
    ("uwsgi.cache_set('long', '123456789')", TRUE),
    ("uwsgi.cache_num('long')", "0"),
    ("uwsgi.cache_inc('long')", TRUE),
    ("uwsgi.cache_get('long')", "b'22345678'"),
    ("uwsgi.cache_clear()", TRUE),
    # what cannot be stored
    ("uwsgi.cache_set('', '1')", NONE),
    ("uwsgi.cache_get('')", NONE),
    ("uwsgi.cache_set('e', '')", NONE),
    ("uwsgi.cache_exists('e')", NONE),
    ("uwsgi.cache_set('k' * 2048, '1')", TRUE),
    ("uwsgi.cache_get('k' * 2048)", "b'1'"),
    ("uwsgi.cache_set('k' * 2049, '1')", NONE),
    ("uwsgi.cache_get('k' * 2049)", NONE),
    ("uwsgi.cache_set('o', 'x' * 64)", TRUE),
    ("uwsgi.cache_set('p', 'x' * 65)", NONE),
    ("uwsgi.cache_update('o', 'x' * 65)", NONE),
    ("len(uwsgi.cache_get('o'))", "64"),
    ("uwsgi.cache_set('big', 'x' * 65536, 0, 'second')", TRUE),
    ("uwsgi.cache_set('bigger', 'x' * 65537, 0, 'second')", NONE),
    ("len(uwsgi.cache_get('big', 'second'))", "65536"),
    # names of caches
    ("uwsgi.cache_clear('')", TRUE),
    ("uwsgi.cache_set('o', '1', 0, '')", TRUE),
    ("uwsgi.cache_set('o', '2', 0, 'second')", TRUE),
    ("uwsgi.cache_get('o')", "b'1'"),
    ("uwsgi.cache_get('o', 'first')", "b'1'"),
    ("uwsgi.cache_get('o', 'second')", "b'2'"),
    ("sorted(uwsgi.cache_keys('second'))", "[b'big', b'o']"),
    ("uwsgi.cache_clear('second')", TRUE),
    ("uwsgi.cache_keys('second')", "[]"),
    ("uwsgi.cache_keys()", "[b'o']"),
    ("uwsgi.cache_get('o', 'none')", NONE),
    ("uwsgi.cache_set('o', '1', 0, 'none')", NONE),
    ("uwsgi.cache_update('o', '1', 0, 'none')", NONE),
    ("uwsgi.cache_exists('o', 'none')", NONE),
    ("uwsgi.cache_del('o', 'none')", NONE),
    ("uwsgi.cache_clear('none')", NONE),
    ("uwsgi.cache_inc('o', 1, 0, 'none')", NONE),
    ("uwsgi.cache_num('o', 'none')", "0"),
    ("uwsgi.cache_keys('none')", "!ValueError"),
    # wrong calls
    ("uwsgi.cache_get(1)", "!TypeError"),
    ("uwsgi.cache_get()", "!TypeError"),
    ("uwsgi.cache_get(key='o')", "!TypeError"),
    ("uwsgi.cache_get('o', 0)", "!TypeError"),
    ("uwsgi.cache_get('o', 'sec\\0ond')", "!ValueError"),
    ("uwsgi.cache_set('x', 1)", "!TypeError"),
    ("uwsgi.cache_set('x', None)", "!TypeError"),
    ("uwsgi.cache_set('x')", "!TypeError"),
    ("uwsgi.cache_set('x', '1', '2')", "!TypeError"),
    ("uwsgi.cache_set('x', '1', 2**70)", "!OverflowError"),
    ("uwsgi.cache_set('x', '1', 0, None)", "!TypeError"),
    ("uwsgi.cache_set('x', '1', 0, b'second')", "!TypeError"),
    ("uwsgi.cache_set('x', '1', 0, 'first', 1)", "!TypeError"),
    ("uwsgi.cache_set('\\ud800', '1')", "!UnicodeEncodeError"),
    ("uwsgi.cache_keys(1)", "!TypeError"),
    ("uwsgi.cache_clear(None)", "!TypeError"),
    # bytes of any kind
    ("uwsgi.cache_set('é', 'é')", TRUE),
    ("uwsgi.cache_get('é'.encode())", "b'\\xc3\\xa9'"),
    ("uwsgi.cache_set(b'[*?]\\\\', bytes(range(64)))", TRUE),
    ("uwsgi.cache_get('[*?]\\\\') == bytes(range(64))", TRUE),
    ("sorted(uwsgi.cache_keys())", "[b'[*?]\\\\', b'o', b'\\xc3\\xa9']"),
    ("uwsgi.cache_clear()", TRUE),
    # expiry, of which the second half is WHEN_EXPIRED
    ("uwsgi.cache_set('a', '1', 1)", TRUE),
    ("uwsgi.cache_get('a')", "b'1'"),
    ("uwsgi.cache_inc('a', 1)", TRUE),
    ("uwsgi.cache_set('b', '1')", TRUE),
    ("uwsgi.cache_inc('b', 1, 1)", TRUE),
    ("uwsgi.cache_set('c', '1', 1)", TRUE),
    ("uwsgi.cache_update('c', '2')", TRUE),
    ("uwsgi.cache_set('d', '1', 1)", TRUE),
    ("uwsgi.cache_inc('f', 3, 1)", TRUE),
    ("uwsgi.cache_inc('h', 5, 1)", TRUE),
    ("uwsgi.cache_mul('i', 5, 1)", TRUE),
    ("uwsgi.cache_set('z', '1', -1)", TRUE),
    ("uwsgi.cache_set('y', '1', True)", TRUE),
)

WHEN_EXPIRED = (
    ("uwsgi.cache_get('a')", NONE),
    ("len(uwsgi.cache_get('b'))", "8"),
    ("uwsgi.cache_get('c')", "b'2'"),
    ("uwsgi.cache_set('d', '2')", TRUE),
    ("uwsgi.cache_get('d')", "b'2'"),
    ("uwsgi.cache_num('f')", "0"),
    ("uwsgi.cache_inc('h', 5)", TRUE),
    ("uwsgi.cache_num('h')", "5"),
    ("uwsgi.cache_exists('i')", NONE),
    ("uwsgi.cache_del('y')", NONE),
    ("uwsgi.cache_get('z')", NONE),
    ("sorted(uwsgi.cache_keys())", "[b'b', b'c', b'd', b'h']"),
)

STORES = ("embedded", "redis")
DATABASES = itertools.cycle(range(16))  # each test has one of its own
WHERE = (*STORES, *(("uwsgi",) if uwsgi_program() else ()))


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


def caches(store: str, redis, *keys: str) -> list[str]:
    """The words that configure these caches in a store."""
    backend = f",backend={redis.url(next(DATABASES))},timeout=10" if store == "redis" else ""
    return [word for each in keys for word in ("--cache2", each + backend)]


@contextlib.contextmanager
def serving(where: str, folder, redis, *keys: str):
    """The HTTP address of the application, served by corelet with one of the stores, or by uWSGI."""
    if where == "uwsgi":
        with uwsgi_running(uwsgi_program(), folder, *caches(where, redis, *keys)) as address:
            yield address
        return
    with running(folder, APPLICATION, *caches(where, redis, *keys)) as server:
        yield server.http
        assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("where", WHERE)
def test_every_call_gives_what_it_gives_in_uwsgi(where, tmp_path, redis):
    keys = ("name=first,items=30,blocksize=64,lazy_expire=1", "name=second,items=30")
    with serving(where, tmp_path, redis, *keys) as address:
        results = ask(address, *(call for call, _ in CALLS))
        assert list(zip((call for call, _ in CALLS), results, strict=True)) == list(CALLS)
        select.select([], [], [], 2.2)  # uWSGI counts whole seconds, so an item of one second lives up to two
        results = ask(address, *(call for call, _ in WHEN_EXPIRED))
        assert list(zip((call for call, _ in WHEN_EXPIRED), results, strict=True)) == list(WHEN_EXPIRED)


@pytest.mark.parametrize("where", WHERE)
def test_math_initial_is_where_a_new_number_begins(where, tmp_path, redis):
    with serving(where, tmp_path, redis, "name=first,items=30,math_initial=10") as address:
        calls = ("uwsgi.cache_inc('m')", "uwsgi.cache_num('m')", "uwsgi.cache_mul('k', 3)", "uwsgi.cache_num('k')")
        assert ask(address, *calls) == [TRUE, "11", TRUE, "30"]


@pytest.mark.parametrize("where", WHERE)
def test_a_block_of_less_than_8_bytes_holds_no_number(where, tmp_path, redis):
    with serving(where, tmp_path, redis, "name=first,items=30,blocksize=4") as address:
        assert ask(address, "uwsgi.cache_inc('m')", "uwsgi.cache_mul('m')", "uwsgi.cache_num('m')") == [NONE, NONE, "0"]


@pytest.mark.parametrize("where", [w for w in WHERE if w != "redis"])
def test_a_full_cache_takes_nothing_new_until_something_is_deleted(where, tmp_path, redis):
    items = 4 if where == "embedded" else 5  # uWSGI has no use for its first item
    with serving(where, tmp_path, redis, f"name=first,items={items}") as address:
        assert ask(
            address,
            "[uwsgi.cache_set(f'k{i}', 'v') for i in range(6)]",
            "sorted(uwsgi.cache_keys())",
            "uwsgi.cache_update('k0', 'w')",
            "uwsgi.cache_update('new', 'w')",
            "uwsgi.cache_inc('number')",
            "uwsgi.cache_get('k0')",
            "uwsgi.cache_del('k3')",
            "uwsgi.cache_inc('number')",
            "sorted(uwsgi.cache_keys())",
        ) == [
            "[True, True, True, True, None, None]",
            "[b'k0', b'k1', b'k2', b'k3']",
            TRUE,
            NONE,
            NONE,
            "b'w'",
            TRUE,
            TRUE,
            "[b'k0', b'k1', b'k2', b'number']",
        ]


@pytest.mark.parametrize("where", [w for w in WHERE if w != "redis"])
def test_purge_lru_makes_room_by_what_was_not_used_for_longest(where, tmp_path, redis):
    items = 3 if where == "embedded" else 4
    with serving(where, tmp_path, redis, f"name=first,items={items},purge_lru=1") as address:
        assert ask(
            address,
            "[uwsgi.cache_set(f'k{i}', 'v') for i in range(3)]",
            "uwsgi.cache_get('k0')",
            "uwsgi.cache_set('n0', 'v')",
            "sorted(uwsgi.cache_keys())",
            "uwsgi.cache_update('k2', 'v')",
            "uwsgi.cache_set('n1', 'v')",
            "uwsgi.cache_get('n0')",
            "uwsgi.cache_set('n2', 'v')",
            "sorted(uwsgi.cache_keys())",
        ) == [
            "[True, True, True]", "b'v'", TRUE, "[b'k0', b'k2', b'n0']",
            TRUE, TRUE, "b'v'", TRUE, "[b'n0', b'n1', b'n2']",
        ]  # fmt: skip


@pytest.mark.parametrize("where", [w for w in WHERE if w != "redis"])
def test_with_bitmap_an_item_may_have_several_blocks_and_all_of_them_count(where, tmp_path, redis):
    items = 7 if where == "embedded" else 8
    with serving(where, tmp_path, redis, f"name=first,items={items},blocks=8,blocksize=4096,bitmap=1") as address:
        assert ask(
            address,
            "uwsgi.cache_set('a', 'x' * 4096)",
            "uwsgi.cache_set('b', 'x' * 4097)",
            "uwsgi.cache_set('c', 'x' * 4096 * 9)",
            "uwsgi.cache_set('d', 'x' * 4096 * 6)",
            "uwsgi.cache_set('d', 'x' * 4096 * 5)",
            "uwsgi.cache_set('e', 'x')",
            "sorted(uwsgi.cache_keys())",
            "uwsgi.cache_del('b')",
            "uwsgi.cache_set('g', 'x' * 4096 * 3)",
            "uwsgi.cache_set('g', 'x' * 4096 * 2)",
            "sorted(uwsgi.cache_keys())",
        ) == [TRUE, TRUE, NONE, NONE, TRUE, NONE, "[b'a', b'b', b'd']", TRUE, NONE, TRUE, "[b'a', b'd', b'g']"]


@pytest.mark.parametrize("where", [w for w in WHERE if w != "redis"])
def test_without_any_cache_calls_answer_as_in_uwsgi(where, tmp_path, redis):
    calls = {
        "uwsgi.cache_get('a')": NONE,
        "uwsgi.cache_set('a', '1')": NONE,
        "uwsgi.cache_update('a', '1')": NONE,
        "uwsgi.cache_del('a')": NONE,
        "uwsgi.cache_exists('a')": NONE,
        "uwsgi.cache_clear()": NONE,
        "uwsgi.cache_inc('a')": NONE,
        "uwsgi.cache_num('a')": "0",
        "uwsgi.cache_keys()": "!ValueError",
    }
    with serving(where, tmp_path, redis) as address:
        assert ask(address, *calls) == list(calls.values())


@pytest.mark.parametrize("store", STORES)
def test_a_cache_of_another_server_is_refused_by_its_address(store, tmp_path, redis):
    with serving(store, tmp_path, redis, "name=first,items=30") as address:
        for call in (
            "uwsgi.cache_get('o', 'first@127.0.0.1:1')",
            "uwsgi.cache_set('o', '1', 0, '@127.0.0.1:1')",
            "uwsgi.cache_clear('first@127.0.0.1:1')",
        ):
            assert ask(address, call) == ["!ValueError"]


@pytest.mark.parametrize("store", STORES)
def test_seconds_may_have_a_fraction_and_expired_items_are_gone_at_once(store, tmp_path, redis):
    with serving(store, tmp_path, redis, "name=first,items=30") as address:
        assert ask(
            address,
            "uwsgi.cache_set('a', '1', 0.2)",
            "uwsgi.cache_get('a')",
            "time.sleep(0.25)",
            "uwsgi.cache_get('a')",
            "uwsgi.cache_exists('a')",
            "uwsgi.cache_keys()",
        ) == [TRUE, "b'1'", NONE, NONE, NONE, "[]"]


@pytest.mark.parametrize("store", STORES)
def test_200_increments_at_once_in_4_workers_are_200(store, tmp_path, redis):
    words = caches(store, redis, "name=count,items=10")
    body = json.dumps(["uwsgi.cache_inc('hits')", "uwsgi.worker_id()"]).encode()
    with mastered(tmp_path, APPLICATION, "--processes", "4", *words) as server:
        server.wait_until_workers(4)
        ask(server.http, "uwsgi.cache_clear()")
        with ThreadPoolExecutor(200) as pool:
            replies = list(pool.map(lambda _: server.get("/", method="POST", body=body), range(200)))
        results = [json.loads(reply.body) for reply in replies]
        assert [result[0] for result in results] == [TRUE] * 200
        assert len({result[1] for result in results}) > 1
        assert ask(server.http, "uwsgi.cache_num('hits')") == ["200"]


@pytest.mark.parametrize("store", STORES)
def test_threads_callbacks_and_imports_may_use_it_too(store, tmp_path, redis):
    source = APPLICATION + (
        "import asyncio, corelet\n"
        "uwsgi.cache_update('imported', 'yes')\n"
        "def in_callback():\n"
        "    future = asyncio.Future()\n"
        "    asyncio.get_event_loop().call_soon(lambda: future.set_result(uwsgi.cache_get('imported')))\n"
        "    return corelet.await_(future)\n"
    )
    with running(tmp_path, source, *caches(store, redis, "name=threads,items=10")) as server:
        assert (
            ask(
                server.http,
                "uwsgi.cache_get('imported')",
                "corelet.to_thread(uwsgi.cache_get, 'imported')",
                "in_callback()",
            )
            == ["b'yes'"] * 3
        )
