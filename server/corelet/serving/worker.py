"""One worker: a loop, its cores, its poller, its listeners, its application. Everything a connection asks of the
server.

The loop is made and set before the application is imported, so that a module-level `asyncio.get_event_loop()` finds the
loop that will run. Signals and sockets belong to the process layer, which gives orders here: `serve`, `stop_accepting`,
`drain`, `hurry`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from corelet import __version__
from corelet.base import forks
from corelet.base.address import Address
from corelet.base.config import Config
from corelet.base.errors import ConfigError, HarakiriError
from corelet.base.loading import Applications
from corelet.base.logs import RateLimited
from corelet.base.outcome import Outcome
from corelet.base.scoreboard import CONNECTIONS, EXCEPTIONS, HARAKIRIS, IN_USE, QUEUED, REQUESTS, Scoreboard
from corelet.serving.connection import Connection
from corelet.serving.cores import Core
from corelet.serving.deadlines import SWEEP_SECONDS, DeadlineQueue
from corelet.serving.http import HttpConnection
from corelet.serving.hub import Hub
from corelet.serving.listener import Listener
from corelet.serving.overdue import NEVER
from corelet.serving.policy import thread_policy
from corelet.serving.poller import Poller
from corelet.serving.selector import MarkingSelector, beat
from corelet.serving.siblings import Siblings
from corelet.serving.uwsgi import UwsgiConnection
from corelet.serving.websocket import Websocket
from corelet.wire.websocket import GOING_AWAY
from corelet.wsgi.environ import server_keys

logger = logging.getLogger("corelet.worker")

RESERVED_DESCRIPTORS = 64  # for the application's own files and connections, and ours
DEFAULT_CONNECTIONS = 10_000
LINGER_SECONDS = 5.0  # nginx's lingering_timeout
LAST_REQUESTS_SECONDS = 1.0  # for requests that are on their way when the worker is told to end
PROTOCOLS: dict[str, type[Connection]] = {"uwsgi": UwsgiConnection, "http": HttpConnection}


class Worker:
    """What serves requests in one process. `access_log` takes each Outcome, or is None when logging is off."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        *,
        worker_id: int = 1,
        access_log: Callable[[Outcome], None] | None = None,
        log_anyway: Callable[[Outcome], None] | None = None,
        board: Scoreboard | None = None,
        siblings: Siblings | None = None,
        report: Callable[[str, str], object] | None = None,
    ) -> None:
        """`board`, `siblings` and `report(word, text)` come from a master, whose channel.py has the words."""
        self.config = config
        self.loop = loop
        self.worker_id = worker_id
        self.access_log = access_log
        self.log_anyway = log_anyway or access_log  # for requests that ask for a line where access_log is None
        self.board = board
        self.siblings = siblings
        self.report = report
        self.only_call_soon = type(loop).__module__.partition(".")[0] == "uvloop"
        self.limits = config.limits
        self.max_block_bytes = self.limits.max_block_bytes
        self.max_vars = self.limits.max_vars
        self.max_connections = config.max_connections or default_connections()
        self.applications: Any = None
        self.application: Any = None
        self.listeners: list[Listener] = []
        self.connections = 0
        self.websockets: set[Websocket] = set()
        self.draining = False
        self.paused = False
        self.after_request: Callable[[], None] | None = None  # the application's hook
        self.requests_at_most = 0  # then the master is asked for a successor
        self.keeps_alive = config.http_keepalive > 0
        self.requests = 0
        self.exceptions = 0
        self.harakiris = 0
        self._node = socket.gethostname()
        self._named: set[str] = set()
        self._limited = RateLimited(logger)
        self._drain_until = 0.0
        self._drain_at_most = NEVER
        self._hurried = False
        self._drained: asyncio.Future[None] | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        keys = partial(
            server_keys,
            node=self._node,
            version=f"corelet {__version__}",
            multithread=config.cores > 1,
            multiprocess=config.processes > 1,
        )
        asyncio.set_event_loop(loop)  # again: the application may have used asyncio.run() while it was imported
        self.hub = Hub(
            loop,
            config.cores,
            lambda number: keys(core=number),
            hide_loop=config.running_loop == "hidden",
            only_call_soon=self.only_call_soon,
            suspend_seconds=config.suspend_timeout or NEVER,
            harakiri_seconds=config.harakiri,
            stubborn_seconds=config.harakiri_graceful_timeout,
            on_stubborn=self._stubborn,
            board=board,
        )
        if board is not None:
            self._be_seen(board)
        self.poller = Poller(loop, self.hub)
        self.heads = DeadlineQueue[Any](config.head_timeout, lambda connection: connection.expire(), self._arm)
        self.idle_connections = DeadlineQueue[Any](
            config.http_keepalive, lambda connection: connection.expire(), self._arm
        )
        self.lingering = DeadlineQueue[Any](LINGER_SECONDS, lambda connection: connection.close(), self._arm)
        forks.belongs(self.leave_behind)

    # -- the life of a worker -------------------------------------------------------------------------------------

    def serve(self, applications: Applications, sockets: Iterable[tuple[socket.socket, Address]]) -> None:
        """Begin to accept; the loop is to be run by the caller."""
        self.applications = applications
        self.application = applications.only
        self.listeners = [Listener(self, sock, address, PROTOCOLS[address.protocol]) for sock, address in sockets]
        self._share_sockets()
        for listener in self.listeners:
            listener.resume()

    def _share_sockets(self) -> None:
        """Other workers wait at the same sockets: let the kernel wake one of us, and listen to their calls."""
        selector = getattr(self.loop, "_selector", None)
        if self.siblings is None or not isinstance(selector, MarkingSelector):
            return
        for listener in self.listeners:
            selector.share(listener.fileno())
        selector.edge(self.siblings.descriptor)
        self.loop.add_reader(self.siblings.descriptor, self.look)

    def _be_seen(self, board: Scoreboard) -> None:
        """Have the loop publish how the worker is, and say when it works and when it waits."""
        selector = getattr(self.loop, "_selector", None)
        if isinstance(selector, MarkingSelector):
            selector.publish = self.publish
        else:
            beat(self.loop, board.cells, self.publish)

    def publish(self) -> None:
        """Write the counters where the master reads them; once in each turn of the loop."""
        if self.board is not None:
            self.publish_on(self.board)

    def publish_on(self, board: Scoreboard) -> None:
        """Write the counters there."""
        cells = board.cells
        hub = self.hub
        cells[REQUESTS] = self.requests
        cells[IN_USE] = len(hub.cores) - len(hub.idle)
        cells[CONNECTIONS] = self.connections
        cells[EXCEPTIONS] = self.exceptions
        cells[HARAKIRIS] = self.harakiris
        cells[QUEUED] = len(hub.queue)
        if self.requests_at_most and self.requests >= self.requests_at_most and self.report is not None:
            self.report("recycle", f"it has served {self.requests} requests (max-requests)")
            self.requests_at_most = 0

    def pause(self) -> None:
        """Accept nothing until `unpause`; what was accepted goes on."""
        self.paused = True
        for listener in self.listeners:
            listener.pause()

    def unpause(self) -> None:
        """Accept again."""
        self.paused = False
        self.free()

    def look(self) -> None:
        """A sibling says that a connection waits which it cannot take."""
        for listener in self.listeners:
            listener.look()

    def _stubborn(self, core: Core) -> None:
        """A core was unwound for harakiri, and the application has caught that and goes on."""
        connection: Any = core.job
        what = connection.title()
        logger.error(
            "core %d %s: the application caught HarakiriError and went on for %g s (harakiri-graceful-timeout)%s",
            core.number,
            what,
            self.config.harakiri_graceful_timeout,
            "; this worker is to be replaced" if self.report is not None else "; its core is lost",
        )
        core.lost = True
        self.harakiris += 1
        if core.response.head_sent or connection.closed:
            connection.abandon()
        else:
            connection.gone = True
            connection.refuse(504, "the application did not answer in time, and does not end")
        if self.report is not None:
            self.report("stubborn", f"core {core.number} does not end {what}")

    def stop_accepting(self) -> None:
        """Take what the kernel has accepted for us already, as far as cores are free, and nothing after that."""
        self.draining = True
        self.keeps_alive = False
        for listener in self.listeners:
            listener.close(look=not self.paused)
        if self.siblings is not None:
            self.siblings.call()  # for whoever the kernel has woken us for, and we did not take

    async def take_the_rest(self, seconds: float) -> None:
        """Nobody accepts after us: take what waits in the backlog, though no core be free, before the socket closes.

        What finds no core waits for one, in order (max-queued). A backlog that does not end is left after `seconds`.
        A pause ends with it: there will be nobody to go on.
        """
        until = self.loop.time() + seconds
        while not self._hurried and self.loop.time() < until:
            more = [listener.take_more() for listener in self.listeners]
            if not any(more):
                return
            await asyncio.sleep(0)

    async def drain(self, seconds: float) -> bool:
        """Let requests finish for so long, then unwind them. True when all could finish."""
        for websocket in tuple(self.websockets):
            websocket.close(GOING_AWAY, "the server ends")
        self._drain_until = 0.0 if self._hurried else min(self.loop.time() + seconds, self._drain_at_most)
        await self._let_last_requests_come()
        hub = self.hub
        while (hub.busy() or hub.queue or hub.background) and self.loop.time() < self._drain_until:
            self._drained = self.loop.create_future()
            self.hub.on_free = self._core_is_free
            await asyncio.wait([self._drained], timeout=min(0.1, max(0.0, self._drain_until - self.loop.time())))
        while self.hub.queue:
            waiting: Any = self.hub.queue.popleft()[0]
            waiting.refuse(503, "the server stops, and no core was free until then")
        return await self.unwind_all("reload-mercy is over; unwound")

    async def _let_last_requests_come(self) -> None:
        """Close idle connections, but not in the face of a request that is on its way.

        nginx has connected and not yet written; a client with a kept connection is just sending its next request. For a
        moment such a request is still taken, and answered with Connection: close.
        """
        until = min(self._drain_until, self.loop.time() + LAST_REQUESTS_SECONDS)
        while (len(self.idle_connections) or len(self.heads)) and self.loop.time() < min(until, self._drain_until):
            await asyncio.sleep(LAST_REQUESTS_SECONDS / 20)
        for connection in self.idle_connections.entries():
            connection.close()

    async def unwind_all(self, why: str) -> bool:
        """Unwind every suspended core, so that its `finally` blocks run. True when there was none."""
        suspended = [core for core in self.hub.busy() if core.since]
        for core in suspended:
            # By a plain callback: a core is never entered from a task's own step.
            self.loop.call_soon(self.hub.unwind, core, HarakiriError("the server stops"), why)
        if suspended:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return not suspended

    def drain_within(self, seconds: float) -> None:
        """A drain that goes on, or is about to, has no longer than this."""
        self._drain_at_most = min(self._drain_at_most, self.loop.time() + seconds)
        self._drain_until = min(self._drain_until, self._drain_at_most)

    @property
    def mercy_left(self) -> float:
        """Seconds that are left of those given to `drain`."""
        return max(0.0, self._drain_until - self.loop.time())

    def leave_behind(self) -> None:
        """In a process that the application has forked: let go of clients, and of the loop (base/forks.py).

        Nobody keeps a list of all connections. Each has a core, or waits for one, or is watched, or has a deadline.
        """
        selector = getattr(self.loop, "_selector", None)
        loop = selector.fileno() if selector is not None else self.loop._get_backend_id()  # type: ignore[attr-defined]
        jobs: list[Any] = [core.job for core in self.hub.all()]
        jobs += [job for job, _since in self.hub.queue]
        for queue in (self.heads, self.idle_connections, self.lingering):
            jobs += queue.entries()
        forks.let_go({*self.poller.watched(), *(getattr(job, "fd", -1) for job in jobs)}, (self.poller.fileno(), loop))
        self.after_request = None  # a child that comes back from its view is not to call it once more
        self.hub.leave_behind()
        if self.board is not None:
            self.board.leave_behind()

    def hurry(self) -> None:
        """Do not wait any longer: `drain` unwinds what still runs."""
        self._hurried = True
        self._drain_until = 0.0
        self._core_is_free()

    def _core_is_free(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- what connections and listeners ask -----------------------------------------------------------------------

    def enqueue(self, connection: Connection) -> None:
        """A complete request finds no core: it waits, in order, for a bounded time, among a bounded number."""
        if len(self.hub.queue) >= self.config.max_queued:
            connection.refuse(
                503, f"all cores are busy and {self.config.max_queued} requests wait already (max-queued)"
            )
            return
        self.hub.queue.append((connection, self.loop.time()))
        self._arm()
        connection.enqueued()

    def withdraw(self, connection: Connection) -> None:
        """Its client has gone before a core was free."""
        queue = self.hub.queue
        for entry in queue:
            if entry[0] is connection:
                queue.remove(entry)
                break
        connection.close()

    def full(self) -> None:
        """No core is free, or too many connections are open: leave the rest to the kernel's backlog."""
        for listener in self.listeners:
            listener.pause()
        if self.siblings is not None:
            self.siblings.call_for(listener.fileno() for listener in self.listeners)
        if not self.hub.idle:
            self.hub.on_free = self.free

    def free(self) -> None:
        """A core or a place for a connection is free again."""
        if self.hub.idle and self.connections < self.max_connections:
            for listener in self.listeners:
                listener.resume()
        elif not self.hub.idle:
            self.hub.on_free = self.free

    def forget(self, connection: Connection) -> None:
        """A connection that may wait somewhere is about to be closed."""
        self.heads.discard(connection)
        self.idle_connections.discard(connection)
        self.lingering.discard(connection)

    def connection_variables(self, sock: Any, address: Any) -> dict[str, str]:
        """The CGI variables of an HTTP connection that no header may set."""
        own = sock.getsockname()
        tcp = isinstance(address, tuple)
        return {
            "REMOTE_ADDR": address[0] if tcp else "",
            "REMOTE_PORT": str(address[1]) if tcp else "",
            "SERVER_NAME": own[0] if tcp else self._node,
            "SERVER_PORT": str(own[1]) if tcp else "80",
            "REQUEST_SCHEME": "http",
        }

    def complain(self, key: str, message: str, *values: object) -> None:
        """One line for what a peer does wrong; the same again only once an interval, with a count (security rule 9)."""
        self._limited.log(self.loop.time(), key, logging.WARNING, message, *values)

    def name_powerless(self, names: frozenset[str]) -> None:
        """Variables from the wire that uWSGI would obey: named once each."""
        for name in sorted(names - self._named):
            self._named.add(name)
            logger.warning(
                "%s came in a packet and is ignored: what a peer sends loads no code and opens no file", name
            )

    def no_application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """What is served where no application is mounted."""
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"404 Not Found: no application is mounted here\n"]

    def busy_cores(self) -> list[Core]:
        """For counters and logs."""
        return self.hub.busy()

    # -- deadlines ------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Something has begun to wait: the sweep runs while anything does, and an idle worker sleeps."""
        if self._deadline_timer is None:
            self._deadline_timer = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._deadline_timer = None
        waiting = self.hub.queue
        try:
            self._expire(self.loop.time())
        finally:
            if waiting or len(self.heads) or len(self.idle_connections) or len(self.lingering):
                self._arm()

    def _expire(self, now: float) -> None:
        for queue in (self.heads, self.idle_connections, self.lingering):
            if len(queue):
                queue.sweep(now)
        waiting = self.hub.queue
        seconds = self.config.queue_timeout
        while waiting and seconds and waiting[0][1] <= now - seconds:
            connection: Any = waiting.popleft()[0]
            connection.refuse(503, f"no core was free within {seconds:g} s (queue-timeout)")
        self._limited.expire(now)


def default_connections() -> int:
    """As many as the process may have descriptors for, less some, and 10,000 at most."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DEFAULT_CONNECTIONS
    return max(16, min(DEFAULT_CONNECTIONS, soft - RESERVED_DESCRIPTORS))


def has_event_loop() -> bool:
    """Whether this thread has a loop already; asking asyncio would make one."""
    return getattr(getattr(thread_policy(), "_local", None), "_loop", None) is not None


def make_loop(config: Config, selector: MarkingSelector | None = None) -> asyncio.AbstractEventLoop:
    """Make the worker's loop and set it, before the application is imported. uvloop takes no selector."""
    if config.loop == "uvloop":
        try:
            import uvloop  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                "loop = uvloop needs the package uvloop: pip install 'corelet[uvloop]', or leave the option out"
            ) from None
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    return loop
