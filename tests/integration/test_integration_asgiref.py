"""`async def` views of Flask and Django run side by side in one worker; thread-sensitive code runs on its core."""

from __future__ import annotations

import pytest
from harness import running
from stage import PRELUDE, at_gate, begin, finish, nothing_is_left, open_gate, tell, unique

ALL_AT_ONCE = 20

FLASK = (
    PRELUDE
    + """
from flask import Flask, g, request, stream_with_context
import corelet

app = Flask(__name__)
LOCAL = threading.local()
VAR = contextvars.ContextVar("VAR", default="unset")

@app.route("/gate/<name>")
async def waits(name):
    return str(await future_gate(name))

@app.route("/sees")
async def sees():
    before = id(asyncio.get_running_loop()) == id(LOOP)
    g.value = "g"
    VAR.set("set")
    await asyncio.sleep(0.001)
    return f"{before} {request.path} {g.value} {asyncio.current_task() is not None}"

@app.after_request
def after(response):
    if request.path == "/sees":
        response.headers["X-Var"] = VAR.get() + g.value
    return response

@app.route("/raises")
async def raises():
    await asyncio.sleep(0)
    raise LookupError("an async view's own")

@app.errorhandler(LookupError)
async def handler(error):
    await asyncio.sleep(0)
    return f"handled {error}", 418

@app.route("/gone/<name>")
async def gone(name):
    try:
        await future_gate(name)
    finally:
        say(f"view {name}: finally.")

application = app.wsgi_app
"""
)

ASGIREF = (
    PRELUDE
    + '''
import corelet
from asgiref.sync import async_to_sync, sync_to_async

LOCAL = threading.local()

def on_core(function, **options):
    return sync_to_async(function, **options)

def here():
    "What plain code can see of where it runs."
    return getattr(LOCAL, "value", None), corelet.in_core(), threading.get_ident()

def view_where(environ, start_response):
    LOCAL.value = environ["QUERY_STRING"]
    mine = threading.get_ident()
    async def coroutine():
        value, in_core, thread = await on_core(here)()
        other, _, elsewhere = await on_core(here, thread_sensitive=False)()
        return value, in_core, thread == mine, other, elsewhere == mine
    spawned = corelet.spawn(coroutine())
    return text(start_response, async_to_sync(coroutine)(), corelet.await_(coroutine()), corelet.await_(spawned))

def view_where_at_a_gate(environ, start_response):
    name = LOCAL.value = environ["QUERY_STRING"]
    async def coroutine():
        await future_gate(name)
        return (await on_core(here)())[0]
    return text(start_response, async_to_sync(coroutine)())

def view_nested(environ, start_response):
    """Down and up and down again, on one core."""
    LOCAL.value = "core"
    def down(depth):
        async def up():
            await asyncio.sleep(0.001)
            if depth:
                return await on_core(down)(depth - 1)
            return here()[0], (await on_core(here)())[0]  # the coroutine itself is on the loop, and on no core
        return async_to_sync(up)()
    return text(start_response, down(5))

def view_levels(environ, start_response):
    """A call of the outer coroutine does not run inside another call of it that waits."""
    log = []
    def transaction():
        log.append("begin")
        async_to_sync(asyncio.sleep)(0.02)
        log.append("end")
    def other():
        log.append("other")
    async def outer():
        async def second():
            await asyncio.sleep(0.005)
            await on_core(other)()
        await asyncio.gather(on_core(transaction)(), second())
    async_to_sync(outer)()
    return text(start_response, *log)

def view_errors(environ, start_response):
    def fails():
        raise LookupError("from the core")
    async def coroutine():
        try:
            await on_core(fails)()
        except LookupError as error:
            return f"coroutine got {error}"
    async def again():
        await on_core(fails)()
    said = [async_to_sync(coroutine)()]
    try:
        async_to_sync(again)()
    except LookupError as error:
        said.append(f"view got {error}")
    return text(start_response, *said)

def view_handling(environ, start_response):
    async def coroutine():
        return str(sys.exc_info()[1]), await on_core(lambda: str(sys.exc_info()[1]))()
    try:
        raise LookupError("handled here")
    except LookupError:
        return text(start_response, *async_to_sync(coroutine)())

VAR = contextvars.ContextVar("VAR", default="unset")

def view_context(environ, start_response):
    def sets():
        seen = VAR.get()
        VAR.set("by the call")
        return seen
    async def coroutine():
        VAR.set("by the coroutine")
        return await on_core(sets)(), VAR.get()
    return text(start_response, *async_to_sync(coroutine)(), VAR.get())

def view_new_loop(environ, start_response):
    async def coroutine():
        return asyncio.get_running_loop() is LOOP, await on_core(here)()
    other, (value, in_core, _) = async_to_sync(coroutine, force_new_loop=True)()
    return text(start_response, other, in_core)

def view_in_thread(environ, start_response):
    async def coroutine():
        await asyncio.sleep(0)
        return "done"
    return text(start_response, corelet.to_thread(async_to_sync(coroutine)))

def view_in_thread_of_coroutine(environ, start_response):
    """Plain code in a thread goes back to the loop of the coroutine that sent it there."""
    async def inner():
        return asyncio.get_running_loop() is LOOP
    def work():
        return async_to_sync(inner)(), corelet.in_core()
    async def outer():
        return await on_core(work, thread_sensitive=False)()
    return text(start_response, *async_to_sync(outer)())

def view_in_own_loop(environ, start_response):
    async def coroutine():
        pass
    async def main():
        try:
            async_to_sync(coroutine)()
        except RuntimeError as error:
            return str(error)
    return text(start_response, asyncio.run(main()))

def view_in_child(environ, start_response):
    async def coroutine():
        pass
    def work():
        try:
            async_to_sync(coroutine)()
        except RuntimeError as error:
            return str(error)
    return text(start_response, greenlet.greenlet(work).switch())

def view_gone_in_a_call(environ, start_response):
    """Unwound in the middle of a call that waits: the call ends, the coroutine is told, the view is unwound."""
    name = environ["QUERY_STRING"]
    def call():
        try:
            corelet.await_(future_gate(name))
        finally:
            say(f"call {name}: finally.")
    async def coroutine():
        try:
            await on_core(call)()
        finally:
            say(f"coroutine {name}: finally.")
    try:
        async_to_sync(coroutine)()
    finally:
        say(f"view {name}: finally.")

def view_gone_before_a_call(environ, start_response):
    """Unwound while a call is queued behind another: it never runs."""
    name = environ["QUERY_STRING"]
    def call():
        corelet.await_(future_gate(name))
    def never():
        say(f"call {name}: ran.")
    async def coroutine():
        await asyncio.gather(on_core(call)(), on_core(never)())
    try:
        async_to_sync(coroutine)()
    finally:
        say(f"view {name}: finally.")

def view_timeout_in_a_call(environ, start_response):
    def call():
        corelet.sleep(3600)
    async def coroutine():
        await on_core(call)()
    try:
        with corelet.timeout(0.05):
            async_to_sync(coroutine)()
    except TimeoutError:
        return text(start_response, "TimeoutError")

def view_exits_in_a_call(environ, start_response):
    async def coroutine():
        await on_core(sys.exit)(3)
    async_to_sync(coroutine)()

def view_left(environ, start_response):
    """A coroutine that outlives its request may still call plain code: on a core of its own."""
    name = environ["QUERY_STRING"]
    LOCAL.value = "the request's"
    async def coroutine():
        await future_gate(name)
        value, in_core, _ = await on_core(here)()
        say(f"left {name}: {value} {in_core}.")
    corelet.spawn(coroutine())
    corelet.sleep(0.001)
    return text(start_response, "left")

def view_cores(environ, start_response):
    return text(start_response, environ["uwsgi.core"], hub_of().retired)

def hub_of():
    return greenlet.getcurrent().hub
'''
)

DJANGO = (
    PRELUDE
    + """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    LOGGING_CONFIG=None,
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
django.setup()

from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections, models, transaction
from django.http import HttpResponse
from django.urls import path


class Order(models.Model):
    name = models.TextField(unique=True)

    class Meta:
        app_label = "shop"


call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(Order)
connection.close()

OPENED = []


def names():
    return " ".join(Order.objects.order_by("id").values_list("name", flat=True))


async def waits(request, name):
    return HttpResponse(str(await future_gate(name)))


async def aget(request, name):
    await Order.objects.acreate(name=name)
    order = await Order.objects.aget(name=name)
    count = await Order.objects.filter(name=name).acount()
    found = [order.name async for order in Order.objects.filter(name=name)]
    return HttpResponse(f"{order.name} {count} {found}")


def plain_awaits(request, name):
    import corelet
    with transaction.atomic():
        Order.objects.create(name=name)
        seen = corelet.await_(Order.objects.aget(name=name))  # in the same transaction: the same connection
        transaction.set_rollback(True)
    return HttpResponse(f"{seen.name} {Order.objects.filter(name=name).exists()}")


class Changed(Exception):
    pass


async def rolled_back(request, name):
    def write():
        with transaction.atomic():
            Order.objects.create(name=name)
            seen = names()
            async_to_sync(future_gate_coroutine)(name)
            raise Changed(seen)
    try:
        await sync_to_async(write)()
    except Changed as error:
        return HttpResponse(f"wrote {error}, then {await sync_to_async(names)()}")


async def future_gate_coroutine(name):
    return await future_gate(name)


async def committed(request, before, name):
    def write():
        with transaction.atomic():
            seen = names()
            async_to_sync(future_gate_coroutine)(before)
            Order.objects.create(name=name)
            async_to_sync(future_gate_coroutine)(name)
        return seen
    seen = await sync_to_async(write)()
    return HttpResponse(f"saw {seen}, then {await sync_to_async(names)()}")


async def session(request):
    count = await request.session.aget("count", 0)
    await request.session.aset("count", count + 1)
    user = await request.auser()
    return HttpResponse(f"{count} {user.is_anonymous}")


async def opens(request, name):
    await Order.objects.acount()
    def remember():
        OPENED.append(connection.connection)
        return connection.connection is not None
    return HttpResponse(str(await sync_to_async(remember)()))


def is_open(link):
    try:
        link.execute("select 1")
        return True
    except Exception:
        return False


urlpatterns = [
    path("gate/<name>", waits),
    path("aget/<name>", aget),
    path("plain/<name>", plain_awaits),
    path("rolled_back/<name>", rolled_back),
    path("committed/<before>/<name>", committed),
    path("session", session),
    path("opens/<name>", opens),
]

application = get_wsgi_application()
"""
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def flask(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("flask"), FLASK, "--asyncio", "32", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def asgiref(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("asgiref"), ASGIREF, "--asyncio", "4", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def django(request, tmp_path_factory):
    with running(tmp_path_factory.mktemp("django"), DJANGO, "--asyncio", "32", "--loop", request.param) as server:
        yield server
        nothing_is_left(server)


def all_inside_at_once(server):
    names = [unique() for _ in range(ALL_AT_ONCE)]
    waiting = [begin(server, f"/gate/{name}", "uwsgi") for name in names]
    for name in names:
        at_gate(server, name)  # none of them has been let go on
    for name in reversed(names):
        open_gate(server, name, f"through {name}")
    for name, sock in zip(names, waiting, strict=True):
        assert finish(sock).body == f"through {name}".encode()


def test_twenty_async_views_of_flask_are_inside_at_once(flask):
    all_inside_at_once(flask)


def test_twenty_async_views_of_django_are_inside_at_once(django):
    all_inside_at_once(django)


def test_an_async_view_of_flask_has_the_workers_loop_its_request_and_its_context(flask):
    reply = flask.get("/sees", "uwsgi")
    assert reply.body == b"True /sees g True"
    assert reply.header("X-Var") == "setg"


def test_an_error_of_an_async_view_reaches_flasks_async_handler(flask):
    reply = flask.get("/raises", "uwsgi")
    assert (reply.status, reply.body) == (418, b"handled an async view's own")


def test_an_async_view_of_flask_is_cancelled_when_its_client_goes(flask):
    name = unique()
    sock = begin(flask, f"/gone/{name}", "uwsgi")
    at_gate(flask, name)
    sock.close()
    flask.log.wait_for(f"view {name}: finally.")


@pytest.mark.parametrize(
    "view, answer",
    [
        ("where?mine", " ".join(["('mine', True, True, None, False)"] * 3)),
        ("nested", "(None, 'core')"),
        ("levels", "begin end other"),
        ("errors", "coroutine got from the core view got from the core"),
        ("handling", "handled here handled here"),
        ("context", "by the coroutine by the call by the call"),
        ("new_loop", "False True"),
        ("in_thread", "done"),
        ("in_thread_of_coroutine", "True False"),
        ("timeout_in_a_call", "TimeoutError"),
    ],
)
def test_asgiref_on_a_core(asgiref, view, answer):
    reply = asgiref.get("/" + view, "uwsgi")
    assert (reply.status, reply.body.decode()) == (200, answer)


def test_thread_sensitive_code_runs_on_the_core_of_its_own_request(asgiref):
    names = [unique() for _ in range(4)]
    waiting = [begin(asgiref, f"/where_at_a_gate?{name}", "uwsgi") for name in names]
    for name in reversed(names):
        open_gate(asgiref, name)
    assert [finish(sock).body.decode() for sock in waiting] == names


def test_inside_a_loop_of_its_own_it_is_the_mistake_that_asgiref_says_it_is(asgiref):
    assert b"You cannot use AsyncToSync in the same thread as an async event loop" in asgiref.get("/in_own_loop").body


def test_in_a_child_greenlet_the_error_is_clear(asgiref):
    assert b"async_to_sync() was called in a child greenlet" in asgiref.get("/in_child").body


def test_a_core_that_is_unwound_in_the_middle_of_a_call_ends_the_call_and_the_coroutine(asgiref):
    name = unique()
    sock = begin(asgiref, f"/gone_in_a_call?{name}", "uwsgi")
    at_gate(asgiref, name)
    sock.close()
    for who in ("call", "view", "coroutine"):
        asgiref.log.wait_for(f"{who} {name}: finally.")


def test_a_call_that_was_queued_when_the_core_is_unwound_never_runs(asgiref):
    name = unique()
    sock = begin(asgiref, f"/gone_before_a_call?{name}", "uwsgi")
    at_gate(asgiref, name)
    sock.close()
    asgiref.log.wait_for(f"view {name}: finally.")
    assert asgiref.get("/where?mine", "uwsgi").status == 200
    assert asgiref.log.count(f"call {name}: ran.") == 0


def test_sys_exit_in_a_call_is_an_error_of_its_request(asgiref):
    assert asgiref.get("/exits_in_a_call", "uwsgi").status == 500
    assert asgiref.get("/where?mine", "uwsgi").status == 200


def test_a_coroutine_that_outlives_its_request_may_call_plain_code(asgiref):
    name = unique()
    assert asgiref.get(f"/left?{name}", "uwsgi").body == b"left"
    open_gate(asgiref, name)
    asgiref.log.wait_for(f"left {name}: None True.")


def test_a_core_goes_back_to_the_pool_after_such_a_request(asgiref):
    before = int(asgiref.get("/cores", "uwsgi").body.split()[1])
    for _ in range(5):
        assert asgiref.get("/where?mine", "uwsgi").status == 200
    assert int(asgiref.get("/cores", "uwsgi").body.split()[1]) == before


def test_djangos_asynchronous_orm_works_in_an_async_view(django):
    name = unique("order")
    assert django.get(f"/aget/{name}", "uwsgi").body.decode() == f"{name} 1 ['{name}']"


def test_an_awaited_query_of_a_plain_view_is_in_its_transaction(django):
    name = unique("order")
    assert django.get(f"/plain/{name}", "uwsgi").body.decode() == f"{name} False"


def test_sessions_and_users_work_in_an_async_view(django):
    first = django.get("/session", "uwsgi")
    assert first.body == b"0 True"
    cookie = first.header("Set-Cookie").partition(";")[0]
    assert django.get("/session", "uwsgi", headers=[("Cookie", cookie)]).body == b"1 True"


def test_two_transactions_of_async_views_keep_apart_and_one_is_rolled_back(tmp_path):
    with running(tmp_path, DJANGO, "--asyncio", "3") as server:
        bad, before, good = unique("bad"), unique("before"), unique("good")
        first = begin(server, f"/rolled_back/{bad}", "uwsgi")
        at_gate(server, bad)  # it has written
        second = begin(server, f"/committed/{before}/{good}", "uwsgi")
        at_gate(server, before)  # both are in a transaction
        open_gate(server, bad)
        assert finish(first).body == f"wrote {bad}, then ".encode()
        open_gate(server, before)
        open_gate(server, good)
        assert finish(second).body == f"saw , then {good}".encode()


def test_a_database_connection_of_an_async_view_is_closed_at_the_end_of_its_request(django):
    assert django.get("/opens/x", "uwsgi").body == b"True"
    assert tell(django, "is_open(OPENED.pop())") == "False"


def test_cooperate_without_asgiref_leaves_it_as_it_is(tmp_path):
    with running(tmp_path, FLASK, "--asyncio", "4", "--cooperate", "none") as server:
        assert server.get("/sees", "uwsgi").body.startswith(b"False ")  # a loop of its own, in a thread


def test_a_name_that_cannot_cooperate_is_refused_at_the_start(tmp_path):
    with (
        pytest.raises(
            AssertionError,
            match=r"cooperate: expected any of asgiref, psycopg2, psycopg, sqlalchemy, or none; got mysql",
        ),
        running(tmp_path, FLASK, "--cooperate", "asgiref,mysql"),
    ):
        pass
