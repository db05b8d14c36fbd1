"""SQLAlchemy's async drivers from plain WSGI code, and the switch with an awaitable that carries them."""

from __future__ import annotations

import time

import pytest
from harness import PATIENCE_SECONDS, running
from stage import PRELUDE, Peer, at_gate, begin, finish, nothing_is_left, open_gate, unique

SWITCHING = (
    PRELUDE
    + '''
import corelet
from sqlalchemy.util import await_only

VAR = contextvars.ContextVar("VAR", default="unset")

def switch_for(awaitable):
    return greenlet.getcurrent().parent.switch(awaitable)

async def later(value, seconds=0.001):
    await asyncio.sleep(seconds)
    return value

class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0.001).__await__()
        return "an object's"

def view_results(environ, start_response):
    future = LOOP.create_future()
    LOOP.call_later(0.001, future.set_result, "a future's")
    done = LOOP.create_future()
    done.set_result("done already")
    nothing = switch_for(asyncio.sleep(0))
    return text(start_response, switch_for(later(1)), switch_for(LOOP.create_task(later(2))), switch_for(future),
                switch_for(done), switch_for(Awaitable()), await_only(later(3)), nothing)

def view_many(environ, start_response):
    return text(start_response, sum(await_only(asyncio.sleep(0, number)) for number in range(500)))

def view_tuple(environ, start_response):
    "A result that is itself a tuple, an awaitable, or None, arrives as it is."
    inner = later(2)
    got = switch_for(later(inner, 0))
    same = got is inner
    inner.close()
    return text(start_response, switch_for(later((1, 2))), switch_for(later(())), same)

def view_exceptions(environ, start_response):
    async def fails():
        await asyncio.sleep(0)
        raise LookupError("its own")
    async def stops():
        raise KeyError("at once")
    task = LOOP.create_task(asyncio.sleep(3600))
    LOOP.call_soon(task.cancel)
    said = []
    for awaitable in (fails(), stops(), task):
        try:
            switch_for(awaitable)
        except BaseException as error:
            said.append(repr(error))
    return text(start_response, *said)

def traced_view(environ, start_response):
    async def traced_coroutine():
        raise LookupError("traced")
    await_only(traced_coroutine())

view_traceback = traced_view

def view_sets(environ, start_response):
    async def sets():
        VAR.set("by the coroutine")
    switch_for(sets())
    return text(start_response, VAR.get())

def view_other_loop(environ, start_response):
    other = asyncio.SelectorEventLoop()
    try:
        switch_for(other.create_future())
    except RuntimeError as error:
        return text(start_response, error)
    finally:
        other.close()

def view_strays(environ, start_response):
    """switch() during the wait is kept for the next raw suspension, as in every wait of the server's."""
    me = greenlet.getcurrent()
    LOOP.call_later(0.001, me.switch, "a stray")
    LOOP.call_later(0.002, me.switch, "another")
    result = switch_for(later("awaited", 0.05))
    return text(start_response, result, "/", me.parent.switch(), "/", me.parent.switch())

def view_stray_from_coroutine(environ, start_response):
    me = greenlet.getcurrent()
    async def coroutine():
        me.switch("a stray")
        await asyncio.sleep(0.01)
        return "awaited"
    return text(start_response, switch_for(coroutine()), me.parent.switch())

def view_in_child(environ, start_response):
    coroutine = later(1)
    def work():
        try:
            await_only(coroutine)
        except Exception as error:
            coroutine.close()
            return f"{type(error).__name__}: {error}"
    return text(start_response, greenlet.greenlet(work).switch())

def view_gone(environ, start_response):
    name = environ["QUERY_STRING"]
    async def awaited():
        try:
            await future_gate(name)
        finally:
            say(f"awaited {name}: finally.")
    try:
        await_only(awaited())
    except BaseException as error:
        say(f"view {name}: {type(error).__name__}.")
        raise
    finally:
        switch_for(later(1))
        say(f"view {name}: awaited in finally.")

def view_future_gate(environ, start_response):
    return text(start_response, switch_for(future_gate(environ["QUERY_STRING"])))
'''
)

SITE = (
    PRELUDE
    + """
import corelet
from sqlalchemy import Integer, String, select, text as sql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

# A connection for each core: a pool that is empty waits in a way that blocks the worker.
engine = create_async_engine("sqlite+aiosqlite:///site.db", pool_size=16)

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String)

def view_create(environ, start_response):
    with engine.sync_engine.begin() as connection:
        Base.metadata.create_all(connection)
    return text(start_response, "created")

def view_add(environ, start_response):
    "A plain Session over the async driver."
    with Session(engine.sync_engine) as session, session.begin():
        session.add(Order(name=environ["QUERY_STRING"]))
    return text(start_response, "added")

def view_has(environ, start_response):
    query = select(Order).where(Order.name == environ["QUERY_STRING"])
    with Session(engine.sync_engine) as session:
        return text(start_response, len(session.scalars(query).all()))

def view_has_async(environ, start_response):
    async def count():
        async with AsyncSession(engine) as session:
            return len((await session.scalars(select(Order).where(Order.name == environ["QUERY_STRING"]))).all())
    return text(start_response, corelet.await_(count()))

def view_session_object(environ, start_response):
    "An AsyncSession used call by call from plain code."
    session = AsyncSession(engine)
    try:
        session.add(Order(name=environ["QUERY_STRING"]))
        corelet.await_(session.commit())
        found = corelet.await_(session.scalars(select(Order).where(Order.name == environ["QUERY_STRING"]))).all()
        return text(start_response, len(found))
    finally:
        corelet.await_(session.close())

def view_rolled_back(environ, start_response):
    name = environ["QUERY_STRING"]
    with Session(engine.sync_engine) as session:
        session.add(Order(name=name))
        session.flush()
        corelet.await_(future_gate(name))
        session.rollback()
    return text(start_response, "rolled back")

def view_fails(environ, start_response):
    try:
        with engine.sync_engine.connect() as connection:
            connection.execute(sql("select * from nowhere"))
    except Exception as error:
        return text(start_response, type(error).__name__)

def view_stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    with Session(engine.sync_engine) as session:
        for name in session.scalars(select(Order.name).order_by(Order.id).execution_options(yield_per=2)):
            yield name.encode() + b" "

def view_gone(environ, start_response):
    name = environ["QUERY_STRING"]
    try:
        with Session(engine.sync_engine) as session:
            session.add(Order(name=name))
            session.flush()
            corelet.await_(future_gate(name))
            session.commit()
    finally:
        say(f"view {name}: finally {engine.sync_engine.pool.checkedout()}.")
"""
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request, tmp_path_factory):
    arguments = ("--asyncio", "4", "--loop", request.param, "--harakiri", "30")
    with running(tmp_path_factory.mktemp("switching"), SWITCHING, *arguments) as server:
        yield server
        nothing_is_left(server)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def site(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("site"), SITE, "--asyncio", "16", "--loop", request.param) as server:
        assert server.get("/create").body == b"created"
        yield server
        nothing_is_left(server)


@pytest.mark.parametrize(
    "view, answer",
    [
        ("results", "1 2 a future's done already an object's 3 None"),
        ("many", "124750"),
        ("tuple", "(1, 2) () True"),
        ("exceptions", "LookupError('its own') KeyError('at once') CancelledError()"),
        ("sets", "by the coroutine"),
        ("strays", "awaited / a stray / another"),
        ("stray_from_coroutine", "awaited a stray"),
    ],
)
def test_a_switch_with_an_awaitable_comes_back_with_its_result(server, view, answer):
    for kind in ("uwsgi", "http"):
        reply = server.get("/" + view, kind)
        assert (reply.status, reply.body.decode()) == (200, answer)


def test_the_traceback_shows_the_view_and_the_coroutine(server):
    start = len(server.log.lines)
    assert server.get("/traceback", "uwsgi").status == 500
    server.log.wait_for("LookupError: traced", start=start)
    text = "\n".join(server.log.lines[start:])
    assert "in traced_view" in text
    assert "in traced_coroutine" in text


def test_a_future_of_another_loop_is_an_error_and_no_hang(server):
    assert b"loop" in server.get("/other_loop", "uwsgi").body


def test_a_child_greenlet_gets_sqlalchemys_own_error(server):
    assert server.get("/in_child", "uwsgi").body.startswith(b"MissingGreenlet: ")


def test_other_requests_are_served_meanwhile(server):
    names = [unique() for _ in range(4)]
    waiting = [begin(server, f"/future_gate?{name}", "uwsgi") for name in names]
    for name in reversed(names):
        open_gate(server, name, f"through {name}")
    assert [finish(sock).body.decode() for sock in waiting] == [f"through {name}" for name in names]


@pytest.mark.parametrize("kind", ["uwsgi", "unix"])
def test_a_client_that_goes_away_cancels_what_is_awaited(server, kind):
    for _ in range(6):  # more often than there are cores
        name = unique()
        sock = begin(server, f"/gone?{name}", kind)
        at_gate(server, name)
        sock.close()
        server.log.wait_for(f"view {name}: ClientDisconnected.")
        server.log.wait_for(f"awaited {name}: finally.")
        server.log.wait_for(f"view {name}: awaited in finally.")


def test_harakiri_cancels_what_is_awaited(serve):
    server = serve(SWITCHING, "--asyncio", "2", "--harakiri", "1")
    name = unique()
    began = time.monotonic()
    reply = finish(begin(server, f"/gone?{name}", "uwsgi"))
    assert reply.status == 504
    assert time.monotonic() - began < PATIENCE_SECONDS
    server.log.wait_for(f"view {name}: HarakiriError.")
    server.log.wait_for(f"awaited {name}: finally.")


def test_a_plain_session_works_over_an_async_driver(site):
    name = unique("order")
    assert site.get(f"/add?{name}", "uwsgi").body == b"added"
    assert site.get(f"/has?{name}", "uwsgi").body == b"1"
    assert site.get(f"/has_async?{name}").body == b"1"


def test_an_async_session_can_be_awaited_call_by_call(site):
    assert site.get(f"/session_object?{unique('order')}", "uwsgi").body == b"1"


def test_sessions_of_two_requests_keep_apart(site):
    name = unique("bad")
    waiting = begin(site, f"/rolled_back?{name}", "uwsgi")
    at_gate(site, name)  # it has written
    assert site.get(f"/has?{name}", "uwsgi").body == b"0"
    open_gate(site, name)
    assert finish(waiting).body == b"rolled back"
    assert site.get(f"/has?{name}", "uwsgi").body == b"0"


def test_an_error_of_the_database_arrives(site):
    assert site.get("/fails", "uwsgi").body == b"OperationalError"


def test_rows_are_streamed_from_an_iterator(site):
    names = [unique("row") for _ in range(5)]
    for name in names:
        assert site.get(f"/add?{name}", "uwsgi").body == b"added"
    with Peer(site) as peer:
        assert peer.get("/stream").body.decode().split()[-5:] == names


def test_a_session_of_a_request_whose_client_has_gone_is_rolled_back_and_given_back(site):
    name = unique("gone")
    sock = begin(site, f"/gone?{name}", "uwsgi")
    at_gate(site, name)
    sock.close()
    site.log.wait_for(f"view {name}: finally 0.")
    assert site.get(f"/has?{name}", "uwsgi").body == b"0"
