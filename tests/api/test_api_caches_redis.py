"""Caches in Redis: shared by several servers, and nobody's trouble when it is gone."""

from __future__ import annotations

import socket
import time

import pytest
from cache_site import APPLICATION, ask
from harness import running
from masters import until
from redis_server import redis_running


@pytest.fixture
def redis(tmp_path):
    with redis_running(tmp_path / "redis") as server:
        yield server


def test_two_servers_share_a_cache_and_keep_others_out(tmp_path, redis):
    shared = ("--cache2", f"name=shared,backend={redis.url()},timeout=10")
    other = ("--cache2", f"name=other,backend={redis.url()},timeout=10")
    with (
        running(tmp_path / "one", APPLICATION, *shared) as one,
        running(tmp_path / "two", APPLICATION, *shared, *other) as two,
    ):
        assert ask(one.http, "uwsgi.cache_set('a', '1')", "uwsgi.cache_set('a', '2')") == ["True", "None"]
        assert ask(two.http, "uwsgi.cache_get('a')", "uwsgi.cache_get('a', 'other')") == ["b'1'", "None"]
        assert ask(two.http, "uwsgi.cache_set('a', '3', 0, 'other')", "uwsgi.cache_clear()") == ["True", "True"]
        assert ask(two.http, "uwsgi.cache_keys('shared')", "uwsgi.cache_keys('other')") == ["[]", "[b'a']"]
        assert "the caches are in" not in one.log.text()


def test_a_redis_that_is_gone_is_a_miss_and_one_line_until_it_is_back(tmp_path, redis):
    calls = (
        "uwsgi.cache_set('a', '1')", "uwsgi.cache_get('a')", "uwsgi.cache_exists('a')", "uwsgi.cache_inc('n')",
        "uwsgi.cache_mul('n')", "uwsgi.cache_num('n')", "uwsgi.cache_del('a')", "uwsgi.cache_clear()",
        "uwsgi.cache_keys()",
    )  # fmt: skip
    with running(tmp_path / "app", APPLICATION, "--cache2", f"name=shared,backend={redis.url()}") as server:
        assert ask(server.http, "uwsgi.cache_update('kept', '1')") == ["True"]
        redis.stop()
        for _ in range(10):
            assert ask(server.http, *calls) == ["None"] * 5 + ["0", "None", "None", "[]"]
        assert server.log.count("does not answer") == 1
        redis.start()
        until(lambda: ask(server.http, "uwsgi.cache_update('a', '1')") == ["True"], "Redis is used again")
        assert ask(server.http, "uwsgi.cache_get('a')") == ["b'1'"]
        server.log.wait_for("cache shared: Redis answers again")
        assert "Traceback" not in server.log.text()


def test_a_redis_that_says_nothing_costs_a_request_its_time_out_and_others_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"
        with running(tmp_path, APPLICATION, "--cache2", f"name=shared,backend={url},timeout=0.3") as server:
            began = time.monotonic()
            assert ask(server.http, "uwsgi.cache_get('a')", *["uwsgi.cache_get('b')"] * 50) == ["None"] * 51
            assert time.monotonic() - began < 5  # 51 time-outs would be 15 s
            server.log.wait_for(f"cache shared: redis://127.0.0.1:{silent.getsockname()[1]}/0 does not answer")
            assert "secret" not in server.log.text()


def test_a_redis_that_refuses_is_one_line_and_goes_on_reading(tmp_path, redis):
    with running(tmp_path / "app", APPLICATION, "--cache2", f"name=shared,backend={redis.url()},timeout=10") as server:
        assert ask(server.http, "uwsgi.cache_set('a', '1')") == ["True"]
        with socket.create_connection(("127.0.0.1", redis.port)) as admin:
            admin.sendall(b"CONFIG SET maxmemory 1\r\n")
            assert admin.recv(100) == b"+OK\r\n"
        for _ in range(5):
            assert ask(server.http, "uwsgi.cache_set('b', '1')", "uwsgi.cache_get('a')") == ["None", "b'1'"]
        assert server.log.count("refuses: ") == 1


def test_a_password_and_a_unix_socket_are_understood(tmp_path):
    path = tmp_path / "redis" / "socket"
    with redis_running(tmp_path / "redis", "--requirepass", "p%w", "--unixsocket", str(path)) as redis:
        for url in (redis.url(password="p%25w"), f"unix://:p%25w@{path}"):
            with running(
                tmp_path / url[:4], APPLICATION, "--cache2", f"name=shared,backend={url},timeout=10"
            ) as server:
                assert ask(server.http, "uwsgi.cache_update('a', '1')", "uwsgi.cache_get('a')") == ["True", "b'1'"]
