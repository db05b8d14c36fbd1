"""threading.local is one per core, as under gevent, or one per thread when asked for."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, begin, finish, open_gate, tell, unique

VIEWS = (
    PRELUDE
    + """
import corelet
from asgiref.local import Local
from threading import local as imported_by_name

PLAIN = threading.local()
NAMED = imported_by_name()
ASGI = Local()
MADE = []

class Connection(threading.local):
    kind = "a class attribute"
    def __init__(self, name, *, option):
        MADE.append(name)
        self.name = name
        self.option = option
        self.uses = 0
    def use(self):
        self.uses += 1
        return self.uses

CONNECTION = Connection("db", option=7)

def view_interleaved(environ, start_response):
    name = environ["QUERY_STRING"]
    PLAIN.value = NAMED.value = ASGI.value = name
    gate(name)
    return text(start_response, PLAIN.value == name, NAMED.value == name, ASGI.value == name)

def view_subclass(environ, start_response):
    name = environ["QUERY_STRING"]
    CONNECTION.uses = 0
    CONNECTION.use()
    gate(name)
    return text(start_response, CONNECTION.name, CONNECTION.option, CONNECTION.use(), CONNECTION.kind)

def view_api(environ, start_response):
    mine = threading.local()
    mine.a = 1
    missing = not hasattr(mine, "b")
    vars(mine)["b"] = 2
    del mine.a
    keys = sorted(mine.__dict__)
    return text(start_response, missing, mine.b, hasattr(mine, "a"), keys, isinstance(mine, threading.local))

def view_in_thread(environ, start_response):
    PLAIN.value = "the core's"
    inside = corelet.to_thread(lambda: getattr(PLAIN, "value", "nothing"))
    return text(start_response, inside, PLAIN.value)

def view_in_callback(environ, start_response):
    PLAIN.value = "the core's"
    me = greenlet.getcurrent()
    LOOP.call_soon(lambda: me.switch(getattr(PLAIN, "value", "nothing")))
    return text(start_response, me.parent.switch(), PLAIN.value)
"""
)


@pytest.fixture(scope="module")
def per_core(tmp_path_factory):
    with running(tmp_path_factory.mktemp("core"), VIEWS, "--asyncio", "4") as server:
        yield server


@pytest.fixture(scope="module")
def per_thread(tmp_path_factory):
    with running(tmp_path_factory.mktemp("thread"), VIEWS, "--asyncio", "4", "--thread-local", "thread") as server:
        yield server


def interleaved(server, view):
    names = [unique() for _ in range(3)]
    waiting = [begin(server, f"/{view}?{name}", "uwsgi") for name in names]
    for name in names:
        open_gate(server, name)
    return [finish(sock).body for sock in waiting]


def test_interleaved_requests_do_not_see_each_others_values(per_core):
    assert interleaved(per_core, "interleaved") == [b"True True True"] * 3


def test_a_subclass_is_initialised_once_on_each_core_with_its_arguments(per_core):
    assert interleaved(per_core, "subclass") == [b"db 7 2 a class attribute"] * 3
    assert tell(per_core, "len(MADE)") == "4"  # at import, and on three cores


def test_the_object_behaves_as_threading_local_does(per_core, per_thread):
    expected = b"True 2 False ['b'] True"
    assert per_core.get("/api", "uwsgi").body == expected
    assert per_thread.get("/api", "uwsgi").body == expected


def test_a_thread_has_its_own_values(per_core):
    assert per_core.get("/in_thread", "uwsgi").body == b"nothing the core's"


def test_the_loops_callbacks_do_not_see_a_cores_values(per_core):
    assert per_core.get("/in_callback", "uwsgi").body == b"nothing the core's"


def test_one_per_thread_when_asked_for(per_thread):
    first, second, third = interleaved(per_thread, "interleaved")
    assert third.startswith(b"True True")
    assert first.startswith(b"False False")
    assert second.startswith(b"False False")
    assert per_thread.get("/in_callback", "uwsgi").body == b"the core's the core's"
