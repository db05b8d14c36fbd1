"""systemd's two protocols: sockets that are handed over, and datagrams about how the service is."""

import os
import secrets
import socket
import subprocess
import sys
import time

import pytest
from harness import PATIENCE_SECONDS, ROOT

from corelet.base.errors import OperatorError
from corelet.process.systemd import Notifier, listen_descriptors

# ---- sockets that are handed over ----

# What the service manager does before its exec: sockets from descriptor 3 on, and three variables.
ACTIVATED = """
import os, socket
from corelet.process.systemd import listen_descriptors
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
for number, sock in enumerate(sockets, 3):
    os.dup2(sock.fileno(), number + 100)
for number, sock in enumerate(sockets, 3):
    os.dup2(number + 100, number)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "a:b"}
print(listen_descriptors(), [os.get_inheritable(number) for number in (3, 4, 103)])
print([name for name in os.environ if name.startswith("LISTEN_")], listen_descriptors())
"""


def test_the_descriptors_from_three_on_are_ours_and_closed_on_exec():
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATED], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["[3, 4] [False, False, True]", "[] []"], done.stderr


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1", "LISTEN_PID": "41", "LISTEN_FDNAMES": "web"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "nonsense", "LISTEN_PID": "41"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "42", "LISTEN_PIDFDID": "7"},
        {"LISTEN_PID": "42"},
    ],
)
def test_what_is_meant_for_another_process_is_not_taken_and_not_left_to_children(environ):
    environ |= {"PATH": "/bin"}
    assert listen_descriptors(environ, pid=42) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["two", "-1", "1.0", "65536", "9" * 5000, "١"])
def test_a_number_of_descriptors_that_is_none_is_refused(count):
    environ = {"LISTEN_FDS": count, "LISTEN_PID": "42"}
    with pytest.raises(OperatorError, match=r"^LISTEN_FDS: expected a number of descriptors; got .*; unset it, or use"):
        listen_descriptors(environ, pid=42)
    assert environ == {}


def test_a_descriptor_that_was_not_passed_on_is_named():
    closed = 3
    while os.path.exists(f"/proc/self/fd/{closed}"):
        closed += 1
    environ = {"LISTEN_FDS": str(closed - 2), "LISTEN_PID": "42"}
    inheritable = [(number, os.get_inheritable(number)) for number in range(3, closed)]
    try:
        with pytest.raises(
            OperatorError, match=rf"^LISTEN_FDS={closed - 2}: descriptor {closed} is not open; whatever starts us"
        ):
            listen_descriptors(environ, pid=42)
    finally:
        for number, before in inheritable:
            os.set_inheritable(number, before)


# ---- how the service is ----


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """The service manager's end: a datagram socket, and what NOTIFY_SOCKET would say."""
    if request.param == "path":
        monkeypatch.chdir(tmp_path)  # its path may be too long
        address, name = "notify", "/proc/self/cwd/notify"
    else:
        name = f"@corelet-{secrets.token_hex(8)}"
        address = "\0" + name[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(PATIENCE_SECONDS)
        yield Manager(sock, name)


class Manager:
    def __init__(self, sock, address):
        self.sock = sock
        self.environ = {"NOTIFY_SOCKET": address}

    def received(self):
        return self.sock.recv(4096).decode().split("\n")


def test_each_event_is_one_datagram_of_assignments(manager):
    notifier = Notifier.from_environment(manager.environ)
    notifier.ready()
    assert manager.received() == ["READY=1"]
    notifier.ready("serving")
    assert manager.received() == ["READY=1", "STATUS=serving"]
    notifier.stopping("2 workers finish")
    assert manager.received() == ["STOPPING=1", "STATUS=2 workers finish"]
    notifier.watchdog()
    assert manager.received() == ["WATCHDOG=1"]
    notifier.status("2 workers, 17 requests")
    assert manager.received() == ["STATUS=2 workers, 17 requests"]


def test_a_reload_says_when_it_began_in_microseconds_of_the_monotonic_clock(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier.from_environment(manager.environ).reloading("generation 2")
    first, when, status = manager.received()
    assert (first, status) == ("RELOADING=1", "STATUS=generation 2")
    name, _, microseconds = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_is_one_line_whatever_it_holds(manager):
    Notifier.from_environment(manager.environ).status("worker 2: KeyError\nREADY=1\r\n  \udce9")
    assert manager.received() == ["STATUS=worker 2: KeyError READY=1 \\udce9"]


def test_an_empty_status_says_nothing(manager):
    notifier = Notifier.from_environment(manager.environ)
    notifier.status("")
    notifier.watchdog()
    assert manager.received() == ["WATCHDOG=1"]


def test_the_variables_are_taken_from_the_environment_and_given_to_a_re_exec(manager):
    given = {**manager.environ, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    environ = {**given, "PATH": "/bin"}
    notifier = Notifier.from_environment(environ)
    assert environ == {"PATH": "/bin"}
    assert notifier.address == given["NOTIFY_SOCKET"]
    assert notifier.environment() == given
    again = Notifier.from_environment({**notifier.environment()})
    assert (again.address, again.watchdog_seconds) == (notifier.address, 15.0)
    again.ready()
    assert manager.received() == ["READY=1"]


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42"}, 1.5),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "42"}, None),
        ({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": "42"}, None),
        ({"WATCHDOG_USEC": "9" * 5000, "WATCHDOG_PID": "42"}, None),
        ({"WATCHDOG_PID": "42"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time_if_it_counts_for_us(variables, seconds):
    environ = {"NOTIFY_SOCKET": "@somewhere", **variables}
    notifier = Notifier.from_environment(environ, pid=42)
    assert notifier.watchdog_seconds == seconds
    assert environ == {}
    assert set(notifier.environment()) == {"NOTIFY_SOCKET"} | ({"WATCHDOG_USEC", "WATCHDOG_PID"} if seconds else set())


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "3000000"}])
def test_without_a_notify_socket_nothing_is_done(environ, caplog):
    notifier = Notifier.from_environment(environ)
    say_everything(notifier)
    assert (notifier.address, notifier.watchdog_seconds, notifier.environment()) == (None, None, {})
    assert caplog.messages == []


def say_everything(notifier):
    notifier.ready("a")
    notifier.reloading()
    notifier.status("b")
    notifier.watchdog()
    notifier.stopping()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/nowhere/notify", "No such file or directory"),
        ("@corelet-nobody-listens-here", "Connection refused"),
        ("vsock:2:1234", "expected a path or @name"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_a_manager_that_cannot_be_reached_is_mentioned_once(caplog, address, reason):
    say_everything(Notifier(address))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"systemd was not told READY=1: {address}: ")
    assert reason in caplog.messages[0]


def test_a_manager_that_does_not_read_is_not_waited_for(manager):
    notifier = Notifier.from_environment(manager.environ)
    for _ in range(10_000):  # far more than a queue of datagrams holds
        notifier.watchdog()
    assert manager.received() == ["WATCHDOG=1"]
