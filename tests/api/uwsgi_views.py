"""The application of the differential tests: one view for a few names of the `uwsgi` module, each answers with values.

It runs under uWSGI and under corelet. A view answers the repr of a tuple of what the calls gave, with anything that
differs from run to run (descriptors, times) turned into a truth about it.
"""

import os
import socket
import time
import traceback

import uwsgi

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "file.txt")


def application(environ, start_response):
    try:
        return globals()["view_" + environ["PATH_INFO"].strip("/")](environ, start_response)
    except Exception:
        traceback.print_exc()
        raise


def answer(start_response, *values):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(values).encode()]


def tried(function, *arguments):
    """What the call gives, or the name of the kind of error that it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        kinds = (TypeError, ValueError, OSError)
        return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)


class Clock:
    def __init__(self):
        self.began = time.monotonic()

    def took(self, seconds):
        """Whether about so many seconds have passed since it was asked last."""
        passed, self.began = time.monotonic() - self.began, time.monotonic()
        return seconds - 0.05 <= passed < seconds + 0.8


TIMED_OUT = "x-wsgiorg.fdevent.timeout"


def view_pid(environ, start_response):
    return answer(start_response, os.getpid())


def view_async_sleep(environ, start_response):
    clock = Clock()
    values = [uwsgi.async_sleep(1), clock.took(0), environ.get(TIMED_OUT, "absent")]
    start_response("200 OK", [])
    yield b""
    values += [clock.took(1), environ.get(TIMED_OUT)]
    yield b""
    values += [clock.took(0)]
    yield uwsgi.async_sleep(1)
    values += [clock.took(1), environ.get(TIMED_OUT)]
    uwsgi.async_sleep(1)
    uwsgi.suspend()
    values += [clock.took(1), uwsgi.ready_fd()]
    yield repr(tuple(values)).encode()


def view_a_chunk_is_sent_before_the_wait(environ, start_response):
    start_response("200 OK", [])
    clock = Clock()
    uwsgi.async_sleep(1)
    yield b"("
    yield repr(clock.took(1)).encode()
    yield b",)"


def view_wait_fd_read(environ, start_response):
    reader, writer = os.pipe()
    clock = Clock()
    values = [uwsgi.ready_fd(), uwsgi.wait_fd_read(reader, 1), clock.took(0), uwsgi.suspend(), clock.took(1)]
    values += [uwsgi.ready_fd(), environ.get(TIMED_OUT, "absent"), environ.get("uwsgi.ready_fd", "absent")]
    os.write(writer, b"x")
    uwsgi.wait_fd_read(reader, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd() == reader, clock.took(0)]
    uwsgi.wait_fd_read(reader)
    uwsgi.suspend()
    values += [uwsgi.ready_fd() == reader]
    uwsgi.wait_fd_read(reader, 0)
    uwsgi.green_schedule()
    values += [uwsgi.ready_fd() == reader]
    os.close(writer)
    os.read(reader, 10)
    uwsgi.wait_fd_read(reader, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd() == reader, os.read(reader, 1)]
    os.close(reader)
    return answer(start_response, *values)


def view_wait_fd_write(environ, start_response):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    values = [uwsgi.wait_fd_write(ours.fileno(), 1), uwsgi.suspend(), uwsgi.ready_fd() == ours.fileno()]
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    clock = Clock()
    uwsgi.wait_fd_write(ours.fileno(), 1)
    uwsgi.suspend()
    values += [clock.took(1), uwsgi.ready_fd()]
    theirs.close()
    ours.close()
    return answer(start_response, *values)


def view_any_of_several(environ, start_response):
    one, into_one = os.pipe()
    two, into_two = os.pipe()
    values = []
    os.write(into_two, b"x")
    uwsgi.wait_fd_read(one, 1)
    uwsgi.wait_fd_read(two, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd() == two, os.read(two, 1)]
    clock = Clock()
    uwsgi.wait_fd_read(two, 1)  # the one that was not ready is not waited for any more
    os.write(into_one, b"x")
    uwsgi.suspend()
    values += [uwsgi.ready_fd(), clock.took(1)]
    uwsgi.wait_fd_read(two, 1)
    uwsgi.wait_fd_write(into_two, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd() == into_two, os.read(one, 1)]
    clock = Clock()
    uwsgi.wait_fd_read(one, 2)  # the first limit that was given holds
    uwsgi.wait_fd_read(two, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd(), clock.took(2)]
    uwsgi.wait_fd_read(one)
    uwsgi.wait_fd_read(two, 1)
    uwsgi.suspend()
    values += [uwsgi.ready_fd(), clock.took(1)]
    return answer(start_response, *values)


def view_generator(environ, start_response):
    start_response("200 OK", [])
    reader, writer = os.pipe()
    clock = Clock()
    yield uwsgi.wait_fd_read(reader, 1)
    values = [clock.took(1), environ[TIMED_OUT], environ.get("uwsgi.ready_fd")]
    os.write(writer, b"x")
    yield uwsgi.wait_fd_read(reader, 1)
    values += [clock.took(0), environ[TIMED_OUT], environ["uwsgi.ready_fd"] == reader, os.read(reader, 9)]
    yield environ["x-wsgiorg.fdevent.readable"](reader, 1)
    values += [clock.took(1), environ[TIMED_OUT]]
    yield environ["x-wsgiorg.fdevent.writable"](writer, 1)
    values += [clock.took(0), environ[TIMED_OUT], environ["uwsgi.ready_fd"] == writer]
    yield repr(tuple(values)).encode()


def view_wrong_descriptors(environ, start_response):
    return answer(
        start_response,
        tried(uwsgi.wait_fd_read, 9999, 1),
        tried(uwsgi.wait_fd_read, -1, 1),
        tried(uwsgi.wait_fd_write, 9999, 1),
        tried(uwsgi.wait_fd_read, "x", 1),
        tried(uwsgi.wait_fd_read, 0, "x"),
        tried(uwsgi.wait_fd_read),
        tried(uwsgi.async_sleep),
        tried(uwsgi.async_sleep, "x"),
    )


def view_one_descriptor_twice(environ, start_response):
    ours, _theirs = socket.socketpair()
    values = [uwsgi.wait_fd_read(ours.fileno(), 1), tried(uwsgi.wait_fd_write, ours.fileno(), 1)]
    uwsgi.suspend()
    return answer(start_response, *values, uwsgi.ready_fd() == ours.fileno())


def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(5)
    return sock, f"127.0.0.1:{sock.getsockname()[1]}"


def view_async_connect(environ, start_response):
    sock, address = listener()
    fd = uwsgi.async_connect(address)
    uwsgi.wait_fd_write(fd, 1)
    uwsgi.suspend()
    values = [type(fd).__name__, uwsgi.ready_fd() == fd, uwsgi.is_connected(fd)]
    peer, _ = sock.accept()
    values += [uwsgi.recv(fd), uwsgi.send(fd, b"hi"), peer.recv(10)]
    peer.send(b"yo" * 3000)
    uwsgi.wait_fd_read(fd, 1)
    uwsgi.suspend()
    values += [len(uwsgi.recv(fd)), len(uwsgi.recv(fd, 100)), uwsgi.recv(fd) == b"yo" * 902, uwsgi.recv(fd)]
    peer.close()
    uwsgi.wait_fd_read(fd, 1)
    uwsgi.suspend()
    values += [uwsgi.recv(fd), uwsgi.is_connected(fd), uwsgi.close(fd), uwsgi.is_connected(fd)]
    values += [tried(os.fstat, fd)]
    return answer(start_response, *values)


def view_async_connect_to_a_path(environ, start_response):
    path = FILE + ".sock"
    if os.path.exists(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(5)
    fd = uwsgi.async_connect(path)
    uwsgi.wait_fd_write(fd, 1)
    uwsgi.suspend()
    values = [type(fd).__name__, uwsgi.is_connected(fd), uwsgi.send(fd, b"hi"), sock.accept()[0].recv(9)]
    return answer(start_response, *values)


def view_connect(environ, start_response):
    sock, address = listener()
    fd = uwsgi.connect(address)
    peer, _ = sock.accept()
    peer.send(b"hello")
    values = [type(fd).__name__, uwsgi.is_connected(fd), uwsgi.recv(fd), uwsgi.send(fd, b"x"), peer.recv(9)]
    peer.close()
    return answer(start_response, *values, uwsgi.recv(fd), uwsgi.close(fd))


def view_what_fails_answers(environ, start_response):
    sock, address = listener()
    sock.close()
    return answer(
        start_response,
        uwsgi.connect(address),
        uwsgi.connect(address, 1),
        uwsgi.async_connect("nonsense"),
        uwsgi.async_connect("/nonexistent.sock"),
        uwsgi.close(9999),
        uwsgi.recv(9999),
        uwsgi.send(9999, b"x"),
        uwsgi.is_connected(9999),
        uwsgi.is_connected(0),
    )


def view_connection_fd(environ, start_response):
    fd = uwsgi.connection_fd()
    return answer(start_response, type(fd).__name__, os.fstat(fd).st_mode >> 12, uwsgi.is_connected(fd))


def view_disconnect(environ, start_response):
    start_response("200 OK", [])
    yield b"('one', "
    yield repr(uwsgi.disconnect()).encode()
    yield b", 'two')"


def view_chunked_read(environ, start_response):
    return answer(start_response, *(tried(uwsgi.chunked_read) for _ in range(4)))


def view_chunked_read_nb(environ, start_response):
    start_response("200 OK", [])
    piece = None
    while piece != b"":
        piece = uwsgi.chunked_read_nb()
        yield repr(piece).encode() + b","
        if piece is None:
            yield uwsgi.wait_fd_read(uwsgi.connection_fd(), 5)


def view_chunked_read_limit(environ, start_response):
    clock = Clock()
    values = [tried(uwsgi.chunked_read, 1), clock.took(0), tried(uwsgi.chunked_read, 1), clock.took(1)]
    return answer(start_response, *values)


def view_chunked_read_without_chunks(environ, start_response):
    return answer(start_response, tried(uwsgi.chunked_read))


def view_cl(environ, start_response):
    return answer(start_response, uwsgi.cl())


def view_env(environ, start_response):
    uwsgi.env["X"] = "y"
    return answer(start_response, environ.get("X"), uwsgi.start_response == start_response, hasattr(uwsgi, "env"))


def view_environ_keys(environ, start_response):
    keys = ["uwsgi.version", "uwsgi.core", "uwsgi.node", TIMED_OUT]
    readable, writable = environ["x-wsgiorg.fdevent.readable"], environ["x-wsgiorg.fdevent.writable"]
    return answer(
        start_response, *(type(environ[key]).__name__ for key in keys), callable(readable), callable(writable)
    )


def view_logvar(environ, start_response):
    values = [uwsgi.get_logvar("mine"), uwsgi.set_logvar("mine", "42"), uwsgi.get_logvar("mine")]
    values += [uwsgi.set_logvar("mine", "43"), uwsgi.get_logvar("mine"), uwsgi.set_logvar(b"other", b"x y")]
    return answer(start_response, *values, uwsgi.get_logvar(b"other"))


def view_add_var(environ, start_response):
    return answer(start_response, uwsgi.add_var("ADDED", "b"), uwsgi.add_var(b"ADDED2", b"d"), environ.get("ADDED"))


def view_locks(environ, start_response):
    values = [uwsgi.is_locked(), uwsgi.lock(), uwsgi.is_locked(), uwsgi.is_locked(0), uwsgi.is_locked(1)]
    values += [uwsgi.unlock(), uwsgi.is_locked(), uwsgi.unlock(), uwsgi.lock(2), uwsgi.is_locked(2), uwsgi.unlock(2)]
    values += [tried(uwsgi.lock, 3), tried(uwsgi.is_locked, 3), tried(uwsgi.unlock, 3), tried(uwsgi.lock, -1)]
    return answer(start_response, *values)


def view_left_locked(environ, start_response):
    uwsgi.lock(1)
    return answer(start_response, uwsgi.is_locked(1))


def view_is_locked_1(environ, start_response):
    return answer(start_response, uwsgi.is_locked(1))


def view_sendfile(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return uwsgi.sendfile(FILE)


def view_sendfile_open(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return uwsgi.sendfile(open(FILE, "rb"))


def view_set_user_harakiri(environ, start_response):
    return answer(start_response, uwsgi.set_user_harakiri(30), uwsgi.set_user_harakiri(0))


def view_requests(environ, start_response):
    before = uwsgi.request_id()
    return answer(start_response, type(before).__name__, before, uwsgi.total_requests())


def view_facts(environ, start_response):
    return answer(
        start_response,
        uwsgi.worker_id(),
        uwsgi.masterpid() == os.getppid(),
        uwsgi.mule_id(),
        uwsgi.numproc,
        uwsgi.cores,
        uwsgi.has_threads,
        uwsgi.is_a_reload,
        uwsgi.unbit,
        uwsgi.applications,
        uwsgi.version,
        uwsgi.version_info[:4],
        type(uwsgi.version_info[4]).__name__,
        uwsgi.hostname == socket.gethostname().encode(),
        type(uwsgi.buffer_size).__name__,
        abs(uwsgi.started_on - time.time()) < 3600,
        type(uwsgi.started_on).__name__,
        [type(fd).__name__ for fd in uwsgi.sockets],
        uwsgi.ready(),
        uwsgi.accepting(),
        uwsgi.listen_queue(),
        uwsgi.listen_queue(0),
        tried(uwsgi.listen_queue, 7),
        uwsgi.logsize(),
        uwsgi.loop,
        uwsgi.pidfile,
    )


def view_measures(environ, start_response):
    memory = uwsgi.mem()
    return answer(
        start_response,
        [type(value).__name__ for value in memory],
        0 < memory[0] < memory[1],
        abs(uwsgi.micros() / 1000000 - time.time()) < 10,
    )


def view_opt(environ, start_response):
    keys = ["async", "greenlet", "workers", "locks", "log-format", "master"]
    return answer(start_response, type(uwsgi.opt).__mro__[-2] is dict, *(uwsgi.opt[key] for key in keys))


def view_workers(environ, start_response):
    first = uwsgi.workers()[0]
    return answer(
        start_response,
        type(uwsgi.workers()).__name__,
        len(uwsgi.workers()),
        sorted(first),
        sorted(first["apps"][0]),
        first["id"],
        first["pid"] == os.getpid(),
        first["status"],
        first["respawn_count"],
        sorted({type(value).__name__ for value in first.values()}),
    )


def view_magic_table(environ, start_response):
    table = uwsgi.magic_table
    keys = sorted(table)
    return answer(start_response, keys, table[b"u"], table[b"v"] == os.getcwd().encode(), table[b"V"])


def view_log(environ, start_response):
    return answer(start_response, uwsgi.log("a line of the application"), uwsgi.log_this_request())


def view_setprocname(environ, start_response):
    return answer(start_response, uwsgi.setprocname("myname"))
