"""psycopg2 and psycopg 3 against a real PostgreSQL: a query suspends its core, and ends when its request does.

An advisory lock that the test holds is the gate at which a query of a view waits.
"""

from __future__ import annotations

import itertools
import time

import psycopg
import pytest
from harness import PATIENCE_SECONDS, running, select_pause
from postgres import postgres
from stage import PRELUDE, begin, finish, nothing_is_left, tell

SITE = (
    PRELUDE
    + """
import corelet
import psycopg, psycopg2

DSN = open("dsn").read()
DRIVERS = {"psycopg": psycopg, "psycopg2": psycopg2}

def scalar(connection, query, *values):
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]

def application(environ, start_response):
    _, driver, view, *rest = environ["PATH_INFO"].split("/")
    if view == "hello":
        return text(start_response, "hello")
    connection = DRIVERS[driver].connect(DSN)
    try:
        return text(start_response, globals()["view_" + view](connection, *rest))
    except BaseException as error:
        say(f"{environ['PATH_INFO']}: {type(error).__name__}, closed: {bool(connection.closed)}.")
        raise
    finally:
        connection.close()

def view_lock(connection, key):
    scalar(connection, "select pg_advisory_lock(%s)", int(key))
    scalar(connection, "select pg_advisory_unlock(%s)", int(key))
    return f"had {key}"

def view_timeout(connection, key):
    try:
        with corelet.timeout(0.1):
            scalar(connection, "select pg_advisory_lock(%s)", int(key))
    except TimeoutError:
        usable = "closed"
        if not connection.closed:
            connection.rollback()
            usable = scalar(connection, "select 'usable'")
        return f"TimeoutError {usable}"

def view_error(connection):
    try:
        scalar(connection, "select 1/0")
    except Exception as error:
        connection.rollback()
        return f"{type(error).__name__} {scalar(connection, 'select 2')}"

def view_large(connection):
    "More than a socket takes, in both directions."
    sent = "x" * 3_000_000
    return str(scalar(connection, "select %s || 'y'", sent) == sent + "y")

def view_rows(connection):
    with connection.cursor() as cursor:
        cursor.execute("select generate_series(1, 20000)")
        return sum(row[0] for row in cursor)

def view_transaction(connection):
    with connection.cursor() as cursor:
        cursor.execute("create temporary table t (n int)")
        cursor.execute("insert into t values (1)")
        connection.commit()
        cursor.execute("insert into t values (2)")
        connection.rollback()
        cursor.execute("select count(*) from t")
        return cursor.fetchone()[0]

def view_thread(connection):
    "A thread blocks as ever."
    return corelet.to_thread(scalar, connection, "select 'in a thread'")

def view_notifies(connection):
    "psycopg 3's generator with a deadline."
    connection.autocommit = True
    connection.execute("listen c")
    connection.execute("notify c, 'said'")
    said = [one.payload for one in connection.notifies(timeout=20, stop_after=1)]
    began = time.monotonic()
    nothing = list(connection.notifies(timeout=0.1))
    return f"{said} {nothing} {0.09 <= time.monotonic() - began < 5}"

def view_copy(connection):
    with connection.cursor() as cursor:
        cursor.execute("create temporary table t (n int)")
        with cursor.copy("copy t from stdin") as copy:
            for number in range(1000):
                copy.write_row((number,))
        cursor.execute("select sum(n) from t")
        return cursor.fetchone()[0]

def outside(driver):
    "In a callback of the loop, on no core: it blocks, and works."
    connection = DRIVERS[driver].connect(DSN)
    try:
        return scalar(connection, "select 'outside'")
    finally:
        connection.close()
"""
)

POOLS = (
    PRELUDE
    + """
import corelet
import psycopg2.pool
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text as sql

DSN, URL = open("dsn").read(), open("url").read()
POOL = ConnectionPool(DSN, min_size=1, max_size=2, open=False)
POOL2 = psycopg2.pool.ThreadedConnectionPool(0, 20, DSN)
ENGINES = {
    driver: create_engine(f"postgresql+{driver}://{URL}", pool_size=2, max_overflow=0)
    for driver in ("psycopg", "psycopg2")
}
LOCK = "select pg_advisory_xact_lock(%s)::text"

def application(environ, start_response):
    _, which, key = environ["PATH_INFO"].split("/")
    key = int(key)
    if which in ENGINES:
        with ENGINES[which].begin() as connection:
            connection.execute(sql(LOCK % key))
    elif which == "pool":
        POOL.open()
        with POOL.connection() as connection:
            connection.execute(LOCK, [key])
    else:
        connection = POOL2.getconn()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(LOCK, [key])
        finally:
            POOL2.putconn(connection)
    return text(start_response, "had", key)
"""
)

DJANGO = (
    PRELUDE
    + """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "HOST": open("folder").read(), "USER": "tester", "NAME": "postgres",
    }},
    INSTALLED_APPS=[],
    LOGGING_CONFIG=None,
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
django.setup()

from asgiref.sync import sync_to_async
from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path


def scalar(query, *values):
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]


def lock(request, key):
    with transaction.atomic():
        scalar("select pg_advisory_xact_lock(%s)::text", int(key))
        return HttpResponse(f"had {key}")


async def lock_async(request, key):
    await sync_to_async(scalar)("select pg_advisory_xact_lock(%s)::text", int(key))
    return HttpResponse(f"had {key}")


urlpatterns = [path("lock/<key>", lock), path("lock_async/<key>", lock_async)]
application = get_wsgi_application()
"""
)

_keys = itertools.count(1)


@pytest.fixture(scope="module")
def cluster():
    with postgres() as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "dsn").write_text(cluster.dsn)
    with running(folder, SITE, "--asyncio", "16", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


@pytest.fixture
def held(cluster):
    """An advisory lock that the test holds: (its key, let go)."""
    key = next(_keys)
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (key,))
        yield key, lambda: connection.execute("select pg_advisory_unlock(%s)", (key,))


def waiting_for(cluster, key, count):
    """Wait until so many queries wait for the lock."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    query = "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        while (found := connection.execute(query, (key,)).fetchone()[0]) != count:
            assert time.monotonic() < deadline, f"{found} wait for the lock instead of {count}"
            select_pause()


both = pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])


@both
def test_ten_queries_wait_at_once_in_one_worker(cluster, server, held, driver):
    key, let_go = held
    waiting = [begin(server, f"/{driver}/lock/{key}", "uwsgi") for _ in range(10)]
    waiting_for(cluster, key, 10)
    assert server.get(f"/{driver}/hello").body == b"hello"
    let_go()
    for sock in waiting:
        assert finish(sock).body == f"had {key}".encode()


@both
@pytest.mark.parametrize(
    "view, answer", [("large", "True"), ("rows", "200010000"), ("transaction", "1"), ("thread", "in a thread")]
)
def test_a_query_in_a_core_gives_what_it_gives_elsewhere(server, driver, view, answer):
    reply = server.get(f"/{driver}/{view}", "uwsgi")
    assert (reply.status, reply.body.decode()) == (200, answer)


@both
def test_an_error_of_the_database_arrives_and_the_connection_goes_on(server, driver):
    assert server.get(f"/{driver}/error", "uwsgi").body == b"DivisionByZero 2"


@both
def test_outside_a_core_a_query_blocks_and_works(server, driver):
    assert tell(server, f"outside({driver!r})") == "'outside'"


@both
@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_the_query_of_a_client_that_has_gone_is_cancelled(cluster, server, held, driver, kind):
    key, _ = held
    sock = begin(server, f"/{driver}/lock/{key}", kind)
    waiting_for(cluster, key, 1)
    sock.close()
    server.log.wait_for(f"/{driver}/lock/{key}: ClientDisconnected")
    waiting_for(cluster, key, 0)


@both
def test_the_query_of_a_request_that_takes_too_long_is_cancelled(cluster, held, tmp_path, driver):
    key, _ = held
    (tmp_path / "dsn").write_text(cluster.dsn)
    with running(tmp_path, SITE, "--asyncio", "2", "--harakiri", "1") as server:
        assert finish(begin(server, f"/{driver}/lock/{key}", "uwsgi")).status == 504
        waiting_for(cluster, key, 0)


def test_a_timeout_cancels_the_query_and_psycopg_keeps_its_connection(cluster, server, held):
    key, _ = held
    assert server.get(f"/psycopg/timeout/{key}", "uwsgi").body == b"TimeoutError usable"
    waiting_for(cluster, key, 0)


def test_a_timeout_cancels_the_query_and_psycopg2_closes_its_connection(cluster, server, held):
    key, _ = held
    assert server.get(f"/psycopg2/timeout/{key}", "uwsgi").body == b"TimeoutError closed"
    waiting_for(cluster, key, 0)


@pytest.mark.parametrize("which, at_once", [("psycopg", 2), ("psycopg2", 2), ("pool", 2), ("pool2", 6)])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_that_find_a_pool_empty_wait_without_blocking_the_worker(
    cluster, held, tmp_path, which, at_once, loop
):
    """Their first connections are made at once too, under the lock of a pool or an engine."""
    key, let_go = held
    (tmp_path / "dsn").write_text(cluster.dsn)
    (tmp_path / "url").write_text(cluster.url)
    with running(tmp_path, POOLS, "--asyncio", "8", "--loop", loop) as server:
        waiting = [begin(server, f"/{which}/{key}", "uwsgi") for _ in range(6)]
        waiting_for(cluster, key, at_once)
        let_go()
        for sock in waiting:
            assert finish(sock).body == f"had {key}".encode()
        assert "blocked for" not in server.log.text()


def test_notifications_of_psycopg_keep_their_deadline(server):
    assert server.get("/psycopg/notifies", "uwsgi").body == b"['said'] [] True"


def test_copy_of_psycopg_works_in_a_core(server):
    assert server.get("/psycopg/copy", "uwsgi").body == b"499500"


@pytest.mark.parametrize("view", ["lock", "lock_async"])
def test_queries_of_django_wait_at_once_and_their_connections_are_closed(cluster, held, tmp_path, view):
    key, let_go = held
    (tmp_path / "folder").write_text(str(cluster.folder))
    with running(tmp_path, DJANGO, "--asyncio", "8") as server:
        waiting = [begin(server, f"/{view}/{key}", "uwsgi") for _ in range(6)]
        waiting_for(cluster, key, 6)
        let_go()
        for sock in waiting:
            assert finish(sock).body == f"had {key}".encode()
        ours = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        deadline = time.monotonic() + PATIENCE_SECONDS
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            while connection.execute(ours).fetchone()[0] > 1:  # `held` has one
                assert time.monotonic() < deadline
                select_pause()


def test_cooperate_without_a_driver_leaves_it_as_it_is(cluster, tmp_path):
    for name in ("some", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dsn").write_text(cluster.dsn)
    with running(tmp_path / "some", SITE, "--asyncio", "2", "--cooperate", "asgiref,psycopg2") as server:
        assert tell(server, "psycopg.waiting.wait.__module__") != "'corelet.api.psycopg_hooks'"
        assert tell(server, "psycopg2.extensions.get_wait_callback().__module__") == "'corelet.api.psycopg_hooks'"
    with running(tmp_path / "none", SITE, "--asyncio", "2", "--cooperate", "none") as server:
        assert tell(server, "psycopg2.extensions.get_wait_callback()") == "None"
