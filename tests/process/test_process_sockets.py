"""Listening sockets: made, protected, warned about, and cleaned up after."""

import errno
import grp
import os
import pwd
import secrets
import socket
import stat

import pytest

from corelet.base.address import parse
from corelet.base.config import Config
from corelet.base.errors import BindError, ConfigError
from corelet.process.sockets import bind, bind_all
from corelet.process.unix_sockets import owner_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A short folder to name sockets in: a path of theirs has at most 107 bytes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listen():
    """Bind an address given as text; whatever was made is closed at the end."""
    made = []

    def listen(text, protocol="uwsgi", **options):
        sock = bind(parse(text, protocol), Config(**options))
        made.append(sock)
        return sock

    yield listen
    for sock in made:
        sock.retire(vacuum=True)


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(address)
        client.sendall(b"x")
        return client.getsockname()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# ---- TCP ----


def test_a_tcp_socket_listens_does_not_block_and_has_what_connections_inherit(listen):
    sock = listen("127.0.0.1:0")
    assert sock.getblocking() is False
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
    connect(socket.AF_INET, sock.getsockname())
    sock.setblocking(True)
    sock.settimeout(5)
    accepted, _ = sock.accept()
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_connection_that_says_nothing_is_not_shown_by_the_kernel(listen):
    sock = listen("127.0.0.1:0")
    with socket.create_connection(sock.getsockname()), pytest.raises(BlockingIOError):
        sock.accept()


def accepted_by(sock):
    """A connection that the socket has accepted, with what it inherited."""
    sock.setblocking(True)
    sock.settimeout(5)
    return sock.accept()[0]


@pytest.mark.parametrize(("nodelay", "expected"), [(True, 1), (False, 0)])
def test_tcp_nodelay_is_on_for_connections_unless_it_is_switched_off(listen, nodelay, expected):
    sock = listen("127.0.0.1:0", "http", tcp_nodelay=nodelay)
    connect(socket.AF_INET, sock.getsockname())
    with accepted_by(sock) as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == expected


@pytest.mark.parametrize(("keepalive", "expected"), [(True, 1), (False, 0)])
def test_so_keepalive_is_inherited_by_connections(listen, keepalive, expected):
    sock = listen("127.0.0.1:0", so_keepalive=keepalive)
    connect(socket.AF_INET, sock.getsockname())
    with accepted_by(sock) as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == expected


def test_without_deferring_a_silent_connection_is_shown_at_once(listen):
    sock = listen("127.0.0.1:0", no_defer_accept=True)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0
    with socket.create_connection(sock.getsockname()), accepted_by(sock) as accepted:
        assert accepted.getpeername()


@pytest.mark.parametrize(("protocol", "corked"), [("uwsgi", 1), ("http", 0)])
def test_a_uwsgi_connection_is_corked_and_an_http_one_is_not(listen, protocol, corked):
    sock = listen("127.0.0.1:0", protocol)
    connect(socket.AF_INET, sock.getsockname())
    with accepted_by(sock) as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == corked


def test_with_reuse_port_two_servers_share_a_port_and_without_they_do_not(listen):
    first = listen("127.0.0.1:0", reuse_port=True)
    text = f"127.0.0.1:{first.getsockname()[1]}"
    listen(text, reuse_port=True)
    with pytest.raises(BindError, match="something listens there already"):
        listen(text)


def test_the_name_has_the_port_that_the_kernel_chose(listen):
    sock = listen("127.0.0.1:0")
    assert sock.name == f"127.0.0.1:{sock.getsockname()[1]}"
    assert sock.name != "127.0.0.1:0"


def test_a_port_alone_listens_on_every_ipv4_address(listen):
    sock = listen(":0", "http")
    assert sock.family == socket.AF_INET
    assert sock.getsockname()[0] == "0.0.0.0"
    assert sock.name.startswith("0.0.0.0:")


def test_an_ipv6_socket_leaves_ipv4_alone(listen):
    six = listen("[::1]:0")
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert six.name == f"[::1]:{six.getsockname()[1]}"
    connect(socket.AF_INET6, six.getsockname())


def test_both_families_share_a_port(listen):
    six = listen("[::]:0", "http")
    four = listen(f":{six.getsockname()[1]}", "http")
    assert four.getsockname()[1] == six.getsockname()[1]


def test_a_port_in_use_names_the_tool_that_finds_its_owner(listen):
    port = listen("127.0.0.1:0").getsockname()[1]
    with pytest.raises(BindError) as caught:
        listen(f"127.0.0.1:{port}")
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        f"something listens there already; `ss -ltnp sport = :{port}` names it"
    )


def test_an_address_of_another_machine_is_named(listen):
    with pytest.raises(BindError, match=r"this machine has no address 192\.0\.2\.1; `ip address` lists what it has$"):
        listen("192.0.2.1:0")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "a port below 1024 needs root"), (errno.EADDRINUSE, "something listens there already")],
)
def test_what_the_system_says_becomes_what_to_do(number, advice):
    from corelet.process.sockets import _tcp_message

    assert advice in _tcp_message(parse("127.0.0.1:80"), OSError(number, os.strerror(number)))


@pytest.mark.parametrize(("text", "protocol", "warned"), [
    (":0", "uwsgi", True), ("0.0.0.0:0", "uwsgi", True), ("[::]:0", "uwsgi", True),
    (":0", "http", False), ("127.0.0.1:0", "uwsgi", False), ("[::1]:0", "uwsgi", False),
])  # fmt: skip
def test_a_uwsgi_socket_that_the_world_may_reach_is_warned_about(listen, caplog, text, protocol, warned):
    listen(text, protocol)
    assert ("speaks uwsgi and other machines may reach it" in caplog.text) is warned


# ---- unix sockets ----


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o660), (0o000, 0o660), (0o077, 0o600), (0o027, 0o660)])
def test_a_unix_socket_is_at_most_0660_whatever_the_umask(folder, listen, umask, expected):
    before = os.umask(umask)
    try:
        listen("app.sock")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert mode("app.sock") == expected


@pytest.mark.parametrize("wanted", [0o666, 0o660, 0o600])
def test_chmod_socket_decides_the_mode(folder, listen, wanted):
    listen("app.sock", chmod_socket=wanted)
    assert mode("app.sock") == wanted


def test_chown_socket_takes_names_and_numbers_and_may_leave_one_out(folder, listen):
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for index, text in enumerate((user, f"{user}:{group}", f":{group}", f"{os.getuid()}:{os.getgid()}")):
        path = f"{index}.sock"
        listen(path, chown_socket=text)
        status = os.lstat(path)
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("text", ["nobody-of-that-name", "0:no-such-group"])
def test_an_unknown_owner_is_named_and_no_socket_is_left_behind(folder, listen, text):
    with pytest.raises(BindError, match=f"^chown-socket {text}: .*; names are those of /etc/passwd and /etc/group$"):
        listen("app.sock", chown_socket=text)
    assert not os.path.lexists("app.sock")


def test_a_unix_socket_can_be_connected_to(folder, listen):
    sock = listen("app.sock")
    assert sock.getblocking() is False
    assert sock.name == "app.sock"
    connect(socket.AF_UNIX, "app.sock")


def test_a_stale_socket_is_replaced(folder, listen):
    with socket.socket(socket.AF_UNIX) as old:
        old.bind("app.sock")
    listen("app.sock")
    connect(socket.AF_UNIX, "app.sock")


def test_a_socket_that_somebody_listens_on_is_left_alone(folder, listen):
    first = listen("app.sock")
    with pytest.raises(
        BindError, match=r"^cannot listen on app\.sock: something listens there already; `ss -lxp` names"
    ):
        listen("app.sock")
    connect(socket.AF_UNIX, "app.sock")
    first.retire(vacuum=True)
    assert not os.path.lexists("app.sock")


def test_a_listener_whose_backlog_is_full_is_alive_all_the_same(folder, listen):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind("app.sock")
        busy.listen(0)
        waiting.connect("app.sock")
        with pytest.raises(BindError, match="something listens there already"):
            listen("app.sock")


def test_a_socket_of_another_kind_is_left_alone(folder, listen):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("app.sock")
        with pytest.raises(BindError, match="something listens there already"):
            listen("app.sock")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(folder, listen, kind):
    if kind == "file":
        (folder / "app.sock").write_text("precious")
    elif kind == "folder":
        (folder / "app.sock").mkdir()
    else:
        (folder / "app.sock").symlink_to("elsewhere")
    with pytest.raises(BindError, match=r"^cannot listen on app\.sock: a file that is no socket is there; remove it"):
        listen("app.sock")
    assert os.path.lexists("app.sock")


def test_a_missing_folder_is_named(folder, listen):
    with pytest.raises(BindError, match="No such file or directory; there is no folder run/web; make it first"):
        listen("run/web/app.sock")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "we may not write to /run"),
        (errno.EPERM, "we may not write to /run"),
        (errno.EROFS, "/run cannot be written to at all"),
        (errno.ENOTDIR, "/run is no folder"),
    ],
)
def test_what_the_system_says_of_a_path_becomes_what_to_do(number, advice):
    from corelet.process.unix_sockets import _unix_message

    assert advice in _unix_message(parse("/run/app.sock"), OSError(number, os.strerror(number)))


def test_a_path_that_is_too_long_never_comes_so_far():
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        bind_all(Config(socket=("/" + "x" * 200,)))


def test_an_abstract_socket_has_no_file_and_no_mode(folder, listen):
    name = f"corelet-{secrets.token_hex(8)}"
    sock = listen(f"@{name}", chmod_socket=0o600)
    assert sock.name == f"@{name}"
    connect(socket.AF_UNIX, f"\0{name}")
    assert os.listdir() == []
    with pytest.raises(BindError, match="Address already in use; something listens there already"):
        listen(f"@{name}")


# ---- the end ----


def test_at_the_end_the_file_is_removed_even_after_a_chdir(folder, listen):
    sock = listen("app.sock")
    (folder / "elsewhere").mkdir()
    os.chdir("elsewhere")
    sock.retire(vacuum=True)
    assert sock.fileno() == -1
    assert not os.path.lexists(folder / "app.sock")


def test_without_vacuum_the_file_stays(folder, listen):
    listen("app.sock").retire(vacuum=False)
    assert os.path.lexists("app.sock")


def test_a_file_that_somebody_else_made_meanwhile_stays(folder, listen):
    first = listen("app.sock")
    os.rename("app.sock", "moved.sock")
    listen("app.sock")
    first.retire(vacuum=True)
    connect(socket.AF_UNIX, "app.sock")


def test_a_file_that_is_gone_already_is_no_error(folder, listen):
    sock = listen("app.sock")
    os.unlink("app.sock")
    sock.retire(vacuum=True)


def test_all_sockets_are_made_in_their_order(folder):
    made = bind_all(Config(socket=("app.sock",), http_socket=("127.0.0.1:0",), uwsgi_socket=("[::1]:0",)))
    assert [(sock.address.label, sock.address.protocol) for sock in made] == [
        ("app.sock", "uwsgi"),
        ("[::1]:0", "uwsgi"),
        ("127.0.0.1:0", "http"),
    ]
    for sock in made:
        sock.retire(vacuum=True)


def test_if_one_socket_fails_none_is_left(folder):
    with pytest.raises(BindError):
        bind_all(Config(socket=("app.sock", "no/folder.sock")))
    assert not os.path.lexists("app.sock")


def test_a_backlog_beyond_the_systems_limit_is_mentioned(folder, caplog):
    for sock in bind_all(Config(http_socket=("127.0.0.1:0",), listen=10_000_000)):
        sock.retire(vacuum=True)
    assert "listen 10000000: the system allows" in caplog.text


@pytest.mark.parametrize("text", ["4294967295", ":4294967296", "99999999999999999999"])
def test_a_number_that_is_no_user_is_refused_with_the_range(text):
    with pytest.raises(BindError, match=r"chown-socket .*expected names, or numbers from 0 to 4294967294"):
        owner_of(text)
