"""Sockets that were not made here: fd://N, those of systemd, of the program before, and of the configuration before."""

import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys

import pytest
from harness import PATIENCE_SECONDS, ROOT, free_port

from corelet.base.address import Address, parse
from corelet.base.config import Config
from corelet.base.errors import BindError
from corelet.process.inherited import assign, look_at, place
from corelet.process.listening import ListeningSocket
from corelet.process.sockets import bind_all, rebind


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A short folder to name sockets in: a path of theirs has at most 107 bytes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def given():
    """given(family, address, listen=True) -> descriptor of a socket as somebody else would have opened it."""
    made = []

    def make(family=socket.AF_INET, address=("127.0.0.1", 0), listen=True, kind=socket.SOCK_STREAM):
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if listen:
            sock.listen(7)
        made.append((sock.fileno(), os.fstat(sock.fileno())))
        sock.set_inheritable(True)
        return sock.detach()

    yield make
    for descriptor, status in made:
        with contextlib.suppress(OSError):  # whoever adopted it has closed it, and the number may be another's now
            if os.path.samestat(os.fstat(descriptor), status):
                os.close(descriptor)


@pytest.fixture
def keep(given):
    """keep(sockets) -> the same; they are closed at the end, before what was given."""
    kept = []

    def remember(sockets):
        kept.extend(sockets)
        return sockets

    yield remember
    for sock in kept:
        sock.retire(vacuum=True)


def port_of(descriptor):
    return look_at(descriptor, "test").port


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# ---- looking at a descriptor ----


def test_a_listening_socket_tells_where_it_is_bound(given, folder):
    four = given()
    assert look_at(four, "test") == Address(
        "tcp4", host="127.0.0.1", port=port_of(four), label=f"127.0.0.1:{port_of(four)}"
    )
    six = given(socket.AF_INET6, ("::1", 0))
    assert look_at(six, "test") == Address("tcp6", host="::1", port=port_of(six), label=f"[::1]:{port_of(six)}")
    path = "app.sock"
    assert look_at(given(socket.AF_UNIX, path), "test") == Address("unix", path=path, label=path)
    name = f"corelet-{secrets.token_hex(8)}"
    assert look_at(given(socket.AF_UNIX, "\0" + name), "test") == Address("abstract", path=name, label=f"@{name}")


def test_looking_changes_nothing(given):
    descriptor = given()
    look_at(descriptor, "test")
    assert os.get_inheritable(descriptor)
    assert os.get_blocking(descriptor)


@pytest.mark.parametrize(
    ("what", "is_said"),
    [
        ("file", "a file"),
        ("folder", "a folder"),
        ("pipe", "a pipe"),
        ("device", "a device"),
        ("epoll", "no socket"),
        ("datagram", "a datagram socket"),
        ("packets", "a socket without a stream"),
        ("netlink", "a socket without a stream"),
        ("silent", "a socket that does not listen"),
        ("connection", r"a connection \(a \.socket unit needs Accept=no\)"),
    ],
)
def test_what_cannot_be_served_is_named(what, is_said):
    import select

    with contextlib.ExitStack() as stack:

        def pair(kind):
            ours, other = socket.socketpair(socket.AF_UNIX, kind)
            stack.enter_context(other)
            return stack.enter_context(ours).fileno()

        makers = {
            "file": lambda: stack.enter_context(open("file", "w")).fileno(),
            "folder": lambda: os.open(".", os.O_RDONLY),
            "pipe": lambda: os.pipe()[0],
            "device": lambda: os.open(os.devnull, os.O_RDONLY),
            "epoll": lambda: stack.enter_context(select.epoll()).fileno(),
            "datagram": lambda: pair(socket.SOCK_DGRAM),
            "packets": lambda: pair(socket.SOCK_SEQPACKET),
            "netlink": lambda: stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)).fileno(),
            "silent": lambda: stack.enter_context(socket.socket()).fileno(),
            "connection": lambda: pair(socket.SOCK_STREAM),
        }
        descriptor = makers[what]()
        with pytest.raises(
            BindError,
            match=rf"^fd://3: expected a listening stream socket; descriptor {descriptor} is {is_said}; check the numb",
        ):
            look_at(descriptor, "fd://3")
        if what in ("folder", "pipe", "device"):
            os.close(descriptor)


def test_a_descriptor_that_is_not_open_is_named():
    with pytest.raises(BindError, match=r"^fd://1048575: expected a listening socket; descriptor 1048575 is not open"):
        bind_all(Config(socket=("fd://1048575",)))


# ---- one place, however it is written ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:80", "localhost:80"),
        (":80", "0.0.0.0:80"),
        ("[::1]:80", "[0:0:0:0:0:0:0:1]:80"),
        ("app.sock", "./app.sock"),
        ("app.sock", "{folder}/app.sock"),
        ("app.sock", "link/app.sock"),
        ("@app", "\\0app"),
        ("fd://3", "fd://3"),
    ],
)
def test_these_are_one_place(folder, one, other):
    os.symlink(folder, "link")
    assert place(parse(one)) == place(parse(other.format(folder=folder), "http"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:80", "127.0.0.1:81"),
        (":80", "[::]:80"),
        ("127.0.0.1:80", ":80"),
        ("app.sock", "@app.sock"),
        ("app.sock", "other.sock"),
        ("fd://3", "fd://4"),
    ],
)
def test_these_are_two_places(one, other):
    assert place(parse(one)) != place(parse(other))


# ---- the decision ----


def addresses(*texts, protocol="uwsgi"):
    return [parse(text, protocol) for text in texts]


FOUND = {3: parse("127.0.0.1:80"), 4: parse("/run/app.sock"), 5: parse("@app")}


def test_a_handed_over_socket_stands_for_the_address_it_is_bound_to():
    wanted = addresses("/run/app.sock", ":9090", "localhost:80", protocol="http")
    assert assign(wanted, {3: FOUND[3], 4: FOUND[4]}, [3, 4], "uwsgi") == [
        (wanted[0], 4), (wanted[1], None), (wanted[2], 3),
    ]  # fmt: skip


def test_without_an_address_all_that_was_handed_over_is_served_with_the_protocol():
    served = assign([], FOUND, [3, 4, 5], "http")
    assert [(address.label, address.protocol, descriptor) for address, descriptor in served] == [
        ("127.0.0.1:80", "http", 3), ("/run/app.sock", "http", 4), ("@app", "http", 5),
    ]  # fmt: skip


def test_what_no_option_names_is_refused_with_the_options_that_would():
    with pytest.raises(BindError) as caught:
        assign(addresses("@app"), FOUND, [3, 4, 5], "uwsgi")
    assert str(caught.value) == (
        "systemd hands over a socket that no option names: 127.0.0.1:80; add --socket 127.0.0.1:80 or --http-socket "
        "127.0.0.1:80, or take it out of the .socket unit\n"
        "systemd hands over a socket that no option names: /run/app.sock; add --socket /run/app.sock or --http-socket "
        "/run/app.sock, or take it out of the .socket unit"
    )


def test_a_number_names_a_descriptor_whether_systemd_or_somebody_else_opened_it():
    (known, descriptor), other = assign(addresses("fd://4", "@app", protocol="http"), FOUND, [4], "uwsgi")
    assert descriptor == 4
    assert known == Address("unix", path="/run/app.sock", protocol="http", label="fd://4", descriptor=4)
    assert other[1] == 5


def test_what_is_taken_by_its_number_cannot_stand_for_an_address_too():
    assert [found for _, found in assign(addresses("127.0.0.1:80", "fd://3"), FOUND, [3], "uwsgi")] == [None, 3]


def test_a_descriptor_can_be_named_once_only():
    with pytest.raises(BindError, match=r"^fd://3 is named twice; a descriptor can be one socket only: remove"):
        assign(addresses("fd://3", "fd://3"), FOUND, [3], "uwsgi")


def test_each_descriptor_is_used_once_and_each_given_one_is_used_or_refused():
    """At random: whatever is configured and handed over, nothing is served twice and nothing is forgotten."""
    texts = ["127.0.0.1:80", "/run/app.sock", "@app", ":9090", "fd://3", "fd://5"]
    for seed in range(2000):
        chance = random.Random(seed)
        wanted = addresses(*chance.sample(texts, chance.randrange(len(texts) + 1)))
        given = sorted(chance.sample(sorted(FOUND), chance.randrange(4)))
        found = {number: FOUND[number] for number in {*given, *(a.descriptor for a in wanted if a.descriptor)}}
        try:
            served = assign(wanted, found, given, "uwsgi")
        except BindError:
            by_number = {address.descriptor for address in wanted}
            by_place = {place(address) for address in wanted}
            assert any(number not in by_number and place(found[number]) not in by_place for number in given), seed
            continue
        used = [descriptor for _, descriptor in served if descriptor is not None]
        assert len(used) == len(set(used)), seed
        assert set(given) <= set(used), seed
        assert len(served) == (len(wanted) or len(given)), seed


# ---- sockets that systemd opened ----


def test_a_socket_of_systemd_is_used_in_the_place_of_a_configured_one(given, keep):
    descriptor = given()
    text = f"127.0.0.1:{port_of(descriptor)}"
    first, second = keep(bind_all(Config(socket=("@" + secrets.token_hex(8),), http_socket=(text,)), [descriptor]))
    assert second.fileno() == descriptor
    assert (second.address, second.name) == (parse(text, "http"), text)
    assert (first.handed, second.handed) == (False, True)


def test_what_systemd_opened_behaves_like_what_we_open(given, keep):
    config = Config(so_keepalive=True)
    (theirs,) = keep(bind_all(config, [given()]))
    (ours,) = keep(bind_all(Config(so_keepalive=True, socket=("127.0.0.1:0",))))
    for sock in (theirs, ours):
        assert (sock.getblocking(), sock.get_inheritable()) == (False, False)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    for option in (socket.TCP_NODELAY, socket.TCP_CORK, socket.TCP_DEFER_ACCEPT):
        value = theirs.getsockopt(socket.IPPROTO_TCP, option)
        assert value == ours.getsockopt(socket.IPPROTO_TCP, option) > 0


def test_keepalive_that_a_unit_asks_for_is_not_taken_back(given, keep):
    descriptor = given()
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    (sock,) = keep(bind_all(Config(), [descriptor]))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_without_a_configured_socket_all_of_systemds_are_served(given, keep):
    descriptors = [given(), given(socket.AF_UNIX, os.path.abspath("app.sock"))]
    served = keep(bind_all(Config(protocol="http"), descriptors))
    assert [sock.fileno() for sock in served] == descriptors
    assert [(sock.address.kind, sock.address.protocol) for sock in served] == [("tcp4", "http"), ("unix", "http")]
    assert served[1].name == os.path.abspath("app.sock")


def test_a_file_that_systemd_made_is_never_removed(given):
    descriptor = given(socket.AF_UNIX, os.path.abspath("app.sock"))
    (sock,) = bind_all(Config(socket=("app.sock",)), [descriptor])
    sock.retire(vacuum=True)
    assert os.path.lexists("app.sock")
    assert not is_open(descriptor)


def test_a_wildcard_socket_of_systemd_that_speaks_uwsgi_is_warned_about(given, keep, caplog):
    keep(bind_all(Config(), [given(address=("0.0.0.0", 0))]))
    assert "speaks uwsgi and other machines may reach it" in caplog.text


def test_nothing_is_bound_if_a_socket_of_systemd_is_left_over(given):
    with pytest.raises(BindError, match=r"systemd hands over a socket that no option names: 127\.0\.0\.1:"):
        bind_all(Config(socket=("app.sock",)), [given()])
    assert not os.path.lexists("app.sock")


def test_what_systemd_hands_over_must_listen(given):
    with pytest.raises(BindError, match=r"^systemd \(LISTEN_FDS\): expected a listening stream socket; .* datagram"):
        bind_all(Config(), [given(kind=socket.SOCK_DGRAM, listen=False)])


# ---- fd:// ----


def test_an_open_descriptor_is_served(given, keep):
    descriptor = given()
    (sock,) = keep(bind_all(Config(http_socket=(f"fd://{descriptor}",))))
    assert (sock.fileno(), sock.handed, sock.getblocking()) == (descriptor, True, False)
    assert (sock.address.kind, sock.address.protocol, sock.address.is_tcp) == ("tcp4", "http", True)
    assert sock.name == f"127.0.0.1:{port_of(descriptor)}"
    assert sock.address.label == f"fd://{descriptor}"


def test_a_number_that_nobody_passed_on_is_not_taken_for_a_socket_of_our_own():
    """The first socket that we bind gets the lowest free number, which may be just the one that is missing."""
    with socket.socket() as probe:
        number = probe.fileno()
    with pytest.raises(BindError, match=f"descriptor {number} is not open; whatever starts us has to open it"):
        bind_all(Config(http_socket=("127.0.0.1:0",), socket=(f"fd://{number}",)))


def test_a_failed_start_leaves_foreign_sockets_open(given):
    descriptor = given()
    with pytest.raises(BindError, match="there is no folder"):
        bind_all(Config(socket=(f"fd://{descriptor}", "no/folder.sock")))
    assert is_open(descriptor)


# ---- handed to the program after us ----

THE_PROGRAM_AFTER = """
import json, os, sys
from corelet.process.listening import ListeningSocket
(sock,) = [ListeningSocket.from_handover(data) for data in json.loads(os.environ["HANDOVER"])]
print(sock.address, sock.file is not None, sock.handed, sock.get_inheritable(), sock.getblocking(), flush=True)
accepted, _ = sock.accept()
accepted.settimeout(10)
accepted.sendall(b"answered: " + accepted.recv(100))
accepted.close()
sock.retire(vacuum=True)
"""

THE_PROGRAM_BEFORE = """
import json, os, socket, sys
from corelet.base.config import Config
from corelet.process.sockets import bind_all
sockets = bind_all(Config(http_socket=("app.sock",)))
client = socket.socket(socket.AF_UNIX)  # waits in the backlog while the program changes
client.connect("app.sock")
client.sendall(b"hello")
os.mkdir("elsewhere")
os.chdir("elsewhere")
for sock in (*sockets, client):
    sock.set_inheritable(True)
after = sys.argv[1] + f"\\nimport socket; print(socket.socket(fileno={client.fileno()}).recv(100))"
environ = {**os.environ, "HANDOVER": json.dumps([sock.handover() for sock in sockets])}
os.execve(sys.executable, [sys.executable, "-W", "ignore", "-c", after], environ)
"""


def test_a_socket_and_what_waits_in_it_survive_an_exec_and_its_file_is_removed_at_the_end(folder):
    done = subprocess.run(
        [sys.executable, "-c", THE_PROGRAM_BEFORE, THE_PROGRAM_AFTER], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "server"]))}, cwd=folder,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    address = Address("unix", path="app.sock", protocol="http", label="app.sock")
    assert done.stdout.splitlines() == [f"{address} True False False False", "b'answered: hello'"], done.stderr
    assert os.listdir() == ["elsewhere"]


def test_all_that_is_known_of_a_socket_goes_through_json(given, keep):
    for config, inherited in (
        (Config(socket=("127.0.0.1:0", "app.sock", "@" + secrets.token_hex(8))), []),
        (Config(http_socket=(f"fd://{given()}",)), []),
        (Config(), [given(socket.AF_INET6, ("::1", 0))]),
    ):
        for sock in bind_all(config, inherited):
            data = json.loads(json.dumps(sock.handover()))
            again = ListeningSocket.from_handover({**data, "of a later version": 1})
            assert (again.fileno(), again.address, again.file, again.handed, again.name, again.family) == (
                sock.fileno(), sock.address, sock.file, sock.handed, sock.name, sock.family,
            )  # fmt: skip
            sock.detach()
            keep([again])


def test_a_handed_on_socket_that_is_not_there_is_named(keep):
    (sock,) = keep(bind_all(Config(socket=("app.sock",))))
    data = {**sock.handover(), "fileno": 1048575}
    with pytest.raises(BindError, match=r"^app\.sock, from the program before: .* descriptor 1048575 is not open"):
        ListeningSocket.from_handover(data)


def test_an_adopted_socket_knows_the_file_it_is_to_remove(given):
    descriptor = given(socket.AF_UNIX, "app.sock")
    status = os.lstat("app.sock")
    file = (os.path.abspath("app.sock"), status.st_dev, status.st_ino)
    ListeningSocket.adopted(parse("app.sock"), descriptor, file).retire(vacuum=True)
    assert not os.path.lexists("app.sock")


# ---- a changed configuration ----


def waiting(sock):
    """A client that waits in the backlog of the socket."""
    client = socket.socket(sock.family)
    client.connect(sock.getsockname())
    client.sendall(b"x")
    return client


def test_equal_addresses_keep_their_socket_in_the_new_order_and_others_are_bound(keep):
    first, second, third = keep(bind_all(Config(socket=("a.sock", "127.0.0.1:0", "b.sock"))))
    with waiting(third):
        served, unwanted = rebind(Config(socket=("c.sock", "./b.sock", "127.0.0.1:0")), [first, second, third])
        keep(served)
        assert [sock.address.path for sock in served] == ["c.sock", "b.sock", ""]
        assert served[1:] == [third, second]
        assert unwanted == [first]
        third.accept()[0].close()
    assert first.fileno() != -1
    assert os.path.lexists("a.sock")


def test_the_same_configuration_changes_nothing(keep):
    config = Config(socket=("a.sock",), http_socket=("127.0.0.1:0", "[::1]:0"))
    present = keep(bind_all(config))
    assert rebind(config, present) == (present, [])


def test_a_socket_that_cannot_be_bound_changes_nothing(keep, given):
    present = keep(bind_all(Config(socket=("a.sock",))))
    fresh = given()
    texts = ("b.sock", f"fd://{fresh}", "no/folder.sock")
    with pytest.raises(BindError, match=r"^cannot listen on no/folder\.sock: .*there is no folder no; make it first"):
        rebind(Config(socket=texts), present)
    assert sorted(os.listdir()) == ["a.sock"]
    assert present[0].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert is_open(fresh)


@pytest.mark.parametrize("text", ["a.sock", "127.0.0.1:0"])
def test_a_protocol_cannot_be_changed_under_its_clients(keep, text):
    present = keep(bind_all(Config(socket=(text,))))
    with pytest.raises(BindError, match=rf"^{text} speaks uwsgi so far: .*; restart the server to make it http, or"):
        rebind(Config(http_socket=(text,)), present)
    assert present[0].fileno() != -1


def test_an_address_that_overlaps_our_own_is_refused_with_the_reason(keep):
    port = free_port()
    present = keep(bind_all(Config(http_socket=(f"127.0.0.1:{port}",))))
    with pytest.raises(
        BindError, match=rf"already in use; .*; our own 127\.0\.0\.1:{port} is open until the reload is over, so an a"
    ):
        rebind(Config(http_socket=(f":{port}",)), present)


def test_a_port_of_somebody_else_is_not_blamed_on_us(keep, given):
    present = keep(bind_all(Config(http_socket=("127.0.0.1:0",))))
    port = port_of(given())
    with pytest.raises(BindError, match=f"sport = :{port}` names it$"):
        rebind(Config(http_socket=(f"127.0.0.1:{port}",)), present)


def test_options_of_a_kept_socket_follow_the_configuration(keep):
    config = Config(http_socket=("127.0.0.1:0",), no_defer_accept=True, tcp_nodelay=False, so_keepalive=True)
    present = keep(bind_all(Config(http_socket=("127.0.0.1:0",))))
    (sock,), _ = rebind(config, present)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    (sock,), _ = rebind(Config(http_socket=("127.0.0.1:0",)), present)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_longer_backlog_holds_for_a_kept_socket(keep):
    present = keep(bind_all(Config(socket=("a.sock",), listen=1)))
    rebind(Config(socket=("a.sock",), listen=50), present)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect("a.sock")  # BlockingIOError if it were full


def test_sockets_of_systemd_stay_while_no_option_names_any(keep, given):
    present = keep(bind_all(Config(), [given(), given()]))
    assert rebind(Config(listen=50), present) == (present, [])
    text = present[0].address.label
    assert rebind(Config(socket=(text, present[1].address.label)), present) == (present, [])
    with pytest.raises(BindError, match=f"^{text} speaks uwsgi so far"):
        rebind(Config(protocol="http"), present)


def test_a_socket_of_systemd_that_is_no_longer_named_is_warned_about(keep, given, caplog):
    present = keep(bind_all(Config(), [given()]))
    served, unwanted = rebind(Config(socket=("a.sock",)), present)
    keep(served)
    assert unwanted == present
    assert f"{present[0].name} is no longer served, but whoever opened it for us (systemd) keeps it open" in caplog.text


def test_a_descriptor_stays_the_socket_that_it_was(keep, given):
    config = Config(socket=(f"fd://{given()}",))
    present = keep(bind_all(config))
    assert rebind(config, present) == (present, [])
    (again,) = [ListeningSocket.from_handover(sock.handover()) for sock in present]
    present[0].detach()
    keep([again])
    assert rebind(config, [again]) == ([again], [])


def test_a_reload_takes_a_new_descriptor_but_none_of_our_own(keep, given):
    present = keep(bind_all(Config(socket=("a.sock",))))
    fresh = given()
    served, _ = rebind(Config(socket=("a.sock", f"fd://{fresh}")), present)
    keep(served)
    assert [sock.fileno() for sock in served] == [present[0].fileno(), fresh]
    own = present[0].fileno()
    with pytest.raises(BindError, match=rf"^fd://{own} is our own socket a\.sock, and none that was passed on to us;"):
        rebind(Config(socket=("a.sock", f"fd://{own}")), served)


def test_a_configuration_without_any_socket_is_refused(keep, given):
    present = keep(bind_all(Config(socket=("a.sock", f"fd://{given()}"))))
    with pytest.raises(BindError, match=r"^no socket is named any more: give --http-socket"):
        rebind(Config(), present)
    assert [sock.fileno() != -1 for sock in present] == [True, True]
