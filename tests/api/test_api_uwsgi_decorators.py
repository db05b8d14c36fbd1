"""`uwsgidecorators`, one by one, and the functions that an application assigns in `uwsgi`."""

import re
import signal

import pytest
from gates import GATES
from harness import running
from masters import gated, mastered

PRELUDE = GATES + (
    """
import threading
import uwsgi
import uwsgidecorators
from uwsgidecorators import *

def view_call(environ, start_response):
    import urllib.parse
    try:
        return text(start_response, repr(eval(urllib.parse.unquote(environ["QUERY_STRING"]))))
    except Exception as error:
        return text(start_response, f"{type(error).__name__}: {error}")
"""
)

ALL = (
    PRELUDE
    + """
@timer(0.05)
def every(number):
    say(f"timer {number}.")

@rbtimer(0.02, iterations=2, target="workers")
def twice(number):
    say(f"rbtimer {number} in {uwsgi.worker_id()}.")

@rb_timer(1000, signum=77)
def seldom(number):
    pass

@cron(-1, -1, -1, -1, -1)
def each_minute(number):
    say(f"cron {number}.")

@filemon("watched")
def changed(number):
    say(f"filemon {number}.")

@signal(99, target="workers")
def ninety_nine(number):
    say(f"signal {number} in {uwsgi.worker_id()}.")

@postfork
def forked():
    say(f"postfork in {uwsgi.worker_id()}.")

@postfork(2)
def forked_in_2():
    say(f"postfork of the second in {uwsgi.worker_id()}.")

@thread
def in_a_thread(a, *, b):
    say(f"thread {a} {b} {threading.current_thread() is threading.main_thread()}.")

STATE = []
uwsgi.lock = lambda number=0: STATE.append("lock")
uwsgi.unlock = lambda number=0: STATE.append("unlock")
uwsgi.set_user_harakiri = lambda seconds: STATE.append(seconds)

@lock
def locked(a, *, b):
    STATE.append((a, b))
    return "locked"

@harakiri(5)
def limited(a, *, b):
    STATE.append((a, b))
    return "limited"

@lock
@harakiri(3)
def fails():
    raise LookupError("its own")

def left_by_one_that_fails():
    STATE.clear()
    try:
        fails()
    except LookupError as error:
        return error, STATE
"""
)


@pytest.fixture(scope="module", params=[(), ("--preload",)])
def server(request, tmp_path_factory):
    with mastered(tmp_path_factory.mktemp("decorators"), ALL, "--disable-logging", *request.param) as server:
        yield server


def call(server, expression: str) -> str:
    return server.get("/call?" + expression.replace(" ", "%20")).body.decode()


def test_timer_rbtimer_cron_and_signal_number_themselves_in_order_and_fire(server):
    server.wait("timer 0.")
    for worker in (1, 2):
        server.wait(f"rbtimer 1 in {worker}.")
    server.wait("cron 2.")
    call(server, "uwsgi.signal(99)")
    for worker in (1, 2):
        server.wait(f"signal 99 in {worker}.")


def test_filemon_fires_when_the_file_changes(server):
    start = server.mark()
    (server.folder / "watched").write_text("changed")
    server.wait("filemon 3.", start)


def test_a_decorated_function_is_still_itself(server):
    names = "every, twice, seldom, each_minute, changed, ninety_nine, forked, forked_in_2"
    assert call(server, f"[f.__name__ for f in ({names}, in_a_thread, locked, limited)]") == repr(
        [*names.split(", "), "in_a_thread", "locked", "limited"]
    )
    assert call(server, "uwsgi.signal_registered(77)") == "True"


def test_postfork_runs_once_in_each_worker_or_in_the_named_one(server):
    text = server.log.text()
    assert sorted(re.findall(r"postfork in (\d)", text)) == ["1", "2"]
    assert re.findall(r"postfork of the second in (\d)", text) == ["2"]


def test_thread_runs_in_a_thread_and_gives_it_back(server):
    start = server.mark()
    assert call(server, "in_a_thread(1, b=2).daemon") == "True"
    server.wait("thread 1 2 False.", start)


def test_lock_and_harakiri_stand_around_the_call_and_are_undone_when_it_raises(server):
    assert call(server, "(STATE.clear(), locked(1, b=2), STATE)") == "(None, 'locked', ['lock', (1, 2), 'unlock'])"
    assert call(server, "(STATE.clear(), limited(1, b=2), STATE)") == "(None, 'limited', [5, (1, 2), 0])"
    left = "(LookupError('its own'), ['lock', 3, 0, 'unlock'])"
    assert call(server, "left_by_one_that_fails()") == left


def test_a_free_signal_is_the_lowest_without_a_handler_until_there_is_none(server):
    assert call(server, "uwsgidecorators.get_free_signal()") == "4"
    answer = call(server, "[signal(n)(every) for n in range(256)] and uwsgidecorators.get_free_signal()")
    assert answer.startswith("ValueError: all 256 signals have a handler already")


@pytest.mark.parametrize(
    "name", ["mulefunc", "spool", "spoolforever", "spoolraw", "muleloop", "mule", "farm", "rpc", "erlang"]
)
def test_what_belongs_to_mules_and_spooler_is_absent(server, name):
    assert call(server, f"hasattr(uwsgidecorators, '{name}')") == "False"


def test_a_mule_as_target_keeps_the_application_from_loading_and_says_what_to_do(tmp_path):
    application = PRELUDE + "@timer(5, target='mule')\ndef every(number):\n    pass\n"
    from masters import corelet

    (tmp_path / "app.py").write_text(application)
    code, said = corelet(tmp_path, "--http-socket", "127.0.0.1:0", "--wsgi-file", "app.py")
    assert code == 22
    assert "target 'mule': there are no mules here: use target='worker'" in said


# -- what is assigned -----------------------------------------------------------------------------------------------

HOOKS = (
    PRELUDE
    + """
def post_fork():
    say(f"post_fork_hook in {uwsgi.worker_id()}.")
    uwsgi.register_signal(5, "", lambda number: say("signal 5."))

def after_request():
    say("after_req_hook.")

def at_exit():
    say(f"atexit in {uwsgi.worker_id()}.")

uwsgi.post_fork_hook = post_fork
uwsgi.after_req_hook = after_request
uwsgi.atexit = at_exit
"""
)


@pytest.mark.parametrize("how", ["master", "preload", "single", "uvloop"])
def test_the_functions_that_are_assigned_are_called_in_each_worker_and_after_each_request(tmp_path, how):
    if how in ("master", "preload"):
        running_server = mastered(tmp_path, HOOKS, *(["--preload"] if how == "preload" else []))
        workers = {"1", "2"}
    else:
        running_server = running(tmp_path, HOOKS, "--loop", "uvloop" if how == "uvloop" else "asyncio")
        workers = {"1"}
    with running_server as server:
        assert set(re.findall(r"post_fork_hook in (\d)", server.log.text())) == workers
        for _ in range(3):
            assert server.get("/pid").status == 200
        server.get("/call?uwsgi.signal(5)")
        server.log.wait_for("signal 5.")
        server.stop()
        text = server.log.text()
        assert text.count("after_req_hook.") == 4
        assert set(re.findall(r"atexit in (\d)", text)) == workers


def test_atexit_is_called_when_a_worker_is_replaced_and_after_its_last_request(tmp_path):
    with gated(tmp_path, HOOKS, master=("--master", "--processes", "1")) as (server, gates):
        with server.connect() as sock:
            sock.sendall(b"GET /gate?g HTTP/1.0\r\nHost: t\r\n\r\n")
            at = gates.at("g")
            server.signal(signal.SIGHUP)
            server.wait_until_draining(at.pid)
            start = server.mark()
            at.open()
            server.wait("atexit in 1.", start)
        said = [line for line in server.log.lines[start:] if line in ("after_req_hook.", "atexit in 1.")]
        assert said == ["after_req_hook.", "atexit in 1."]


def test_an_after_req_hook_may_wait_and_what_it_raises_changes_no_reply(tmp_path):
    application = PRELUDE + "uwsgi.after_req_hook = lambda: (corelet.sleep(0.01), say('waited.'), 1 / 0)\n"
    with running(tmp_path, application) as server:
        for kind in ("http", "uwsgi", "unix"):
            assert server.get("/pid", kind).status == 200
        server.log.wait_for("uwsgi.after_req_hook failed")
        server.stop()  # the last reply is there before its hook has run
        assert server.log.lines.count("waited.") == 3


def test_a_hook_that_raises_is_logged_and_the_worker_serves(tmp_path):
    application = PRELUDE + (
        "def fails():\n    raise LookupError('its own')\n"
        "uwsgi.post_fork_hook = fails\nuwsgi.atexit = lambda: sys.exit(5)\n"
    )
    with mastered(tmp_path, application) as server:
        server.wait("uwsgi.post_fork_hook failed")
        assert server.get("/pid").status == 200
        assert server.stop() == 0
        assert "uwsgi.atexit: sys.exit(5)" in server.log.text()


def test_sys_exit_in_a_handler_ends_nothing(tmp_path):
    application = PRELUDE + "uwsgi.register_signal(1, '', lambda number: sys.exit(3))\n"
    with running(tmp_path, application) as server:
        server.get("/call?uwsgi.signal(1)")
        server.log.wait_for("signal 1 handler")
        assert server.get("/pid").status == 200
