"""A websocket on a connection that a request has taken over: reading and writing in its core, and signs of life.

The core waits in `receive` and in `send`. All that is sent goes through one queue, since more than one may want to
send: the core, a callback that was given the request's context, the server when it ends (1001). Only the core waits for
the peer to read; who sends from elsewhere finds the queue bounded.

Events come from the poller, edge-triggered: the socket is read until it is empty before anybody waits for it. The
application may put its own reader on the descriptor; ours is another epoll.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from corelet.base.errors import NotInCore, WebsocketClosed
from corelet.serving.cores import Core
from corelet.serving.overdue import NEVER
from corelet.serving.poller import IN, LOST, OUT, PEER_CLOSED
from corelet.wire.websocket import GOING_AWAY, NORMAL, Conversation, Message

if TYPE_CHECKING:
    from corelet.serving.connection import Connection

READ_BYTES = 65536
MAX_QUEUED_BYTES = 1 << 20  # that who does not wait may leave to be sent
UNHEARD = "unable to receive websocket message"
UNSENT = "unable to send websocket message"


class Websocket:
    """One open websocket. To be made in the core of its request, once the handshake is judged."""

    def __init__(self, connection: Connection, core: Core, head: bytes) -> None:
        """`head` is the 101 that answers the handshake. Raises ResponseError when a reply has begun already."""
        config = connection.worker.config
        core.response.take_over(head)
        self._connection = connection
        self._core = core
        self._serial = core.serial
        self._loop = connection.worker.loop
        self.conversation = Conversation(config.websockets_max_size * 1024)
        self._ping_seconds = config.websockets_ping_freq or NEVER
        self._pong_seconds = config.websockets_pong_tolerance
        self._queue = bytearray()
        self._wanted = 0  # what the core waits for
        self._eof = False
        self._ping_at = self._loop.time() + self._ping_seconds
        self._pong_by = NEVER
        self._pongs = 0
        behind = connection.take_over(self)
        connection.send(head)
        core.harakiri_at = NEVER  # a websocket lives long; its silence has a bound of its own
        connection.worker.websockets.add(self)
        if behind:
            self.conversation.feed(behind)
        if connection.worker.draining:  # it was on its way when the worker was told to end
            self.close(GOING_AWAY, "the server ends")

    # -- in the core ----------------------------------------------------------------------------------------------

    def receive(self, seconds: float = NEVER) -> Message | None:
        """The next message, waited for; None when none came within so many seconds.

        Raises WebsocketClosed at the websocket's end.
        """
        until = self._loop.time() + seconds
        while True:
            message = self.receive_now()
            if message is not None:
                return message
            now = self._loop.time()
            if now >= until:
                return None
            self._wait(IN, min(until, self._ping_at, self._pong_by))

    def receive_now(self) -> Message | None:
        """The next message if it has come, else None. From elsewhere than the core too. Raises WebsocketClosed."""
        conversation = self.conversation
        while not conversation.messages:
            self._show_life()
            if conversation.peer_closed or not conversation.is_open:
                self._flush()
                raise WebsocketClosed(UNHEARD, conversation.close_code, conversation.close_reason)
            if not self._fetch():
                return None
        return conversation.messages.popleft()

    def send(self, data: bytes, is_text: bool) -> None:
        """Send a message, waiting for the peer to read where the caller is the core. Raises WebsocketClosed."""
        conversation = self.conversation
        if not conversation.is_open:
            raise WebsocketClosed(UNSENT, conversation.close_code, conversation.close_reason)
        if len(self._queue) > MAX_QUEUED_BYTES and not self._core.is_current():
            raise WebsocketClosed(f"{UNSENT}: the peer does not read, and {len(self._queue)} bytes wait", GOING_AWAY)
        conversation.send(data, is_text)
        self._flush()
        self._core.response.body_bytes += len(data)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the websocket: the peer is told, and whoever waits for a message gets WebsocketClosed."""
        self.conversation.close(code, reason)
        self._flush(wait=False)
        self._wake()

    def end(self) -> None:
        """The request is over: end in order if the application has not. Never waits."""
        self.conversation.close()
        self._flush(wait=False)
        self._connection.worker.websockets.discard(self)

    # -- the socket -----------------------------------------------------------------------------------------------

    def _fetch(self) -> bool:
        """Read what has come; False when nothing has."""
        try:
            data = os.read(self._connection.fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.conversation.feed(data)
        self._flush()
        return True

    def _flush(self, wait: bool = True) -> None:
        """Send what is to be sent. Where the core is the caller, and `wait`, wait until all of it has gone."""
        self._queue += self.conversation.outgoing()
        while self._queue:
            try:
                sent = os.write(self._connection.fd, self._queue)
            except BlockingIOError:
                if not (wait and self._core.is_current()):
                    self._connection.watch(OUT)
                    return
                self._wait_to_write()
            except OSError:
                self._queue.clear()
                self.conversation.feed(b"")
            else:
                del self._queue[:sent]

    def _wait_to_write(self) -> None:
        seconds = self._connection.timeout()
        until = self._loop.time() + seconds
        before = len(self._queue)
        self._wait(OUT, until)
        if self._loop.time() >= until and len(self._queue) >= before:
            self._queue.clear()
            self.conversation.feed(b"")
            raise WebsocketClosed(f"{UNSENT}: the peer has not read for {seconds:g} s", GOING_AWAY)

    def _wait(self, wanted: int, until: float) -> None:
        """In the core: until an event that is wanted, or the time, or a wake-up."""
        core = self._core
        if not core.is_current():
            raise NotInCore("a websocket is waited for in the core of its own request")
        self._wanted = wanted
        self._connection.watch(wanted | PEER_CLOSED)
        timer = None
        if until < NEVER:
            timer = self._loop.call_at(until, self._loop.call_soon, self._wake)
        try:
            core.hub.wait(core)
        finally:
            self._wanted = 0
            if timer is not None:
                timer.cancel()

    def _show_life(self) -> None:
        """Ping a peer that has been silent for websockets-ping-freq; one that does not answer in time is gone."""
        now = self._loop.time()
        conversation = self.conversation
        if conversation.pongs != self._pongs:
            self._pongs = conversation.pongs
            self._pong_by = NEVER
        if now >= self._pong_by:
            self._fetch()  # it may have come while nobody looked
            if conversation.pongs == self._pongs:
                conversation.close(GOING_AWAY, "no pong came")
                conversation.feed(b"")
        elif now >= self._ping_at:
            self._ping_at = now + self._ping_seconds
            if self._pong_by == NEVER:
                self._pong_by = now + self._pong_seconds
            conversation.ping()
            self._flush()

    # -- in the hub -----------------------------------------------------------------------------------------------

    def event(self, mask: int) -> None:
        """The poller's event."""
        if mask & (PEER_CLOSED | LOST):
            self._eof = True
            if self._core.since and not self._wanted:
                # The application waits for something else, and may read the end by itself; if not, it is unwound.
                self._core.gone_at = self._loop.time() + self._connection.timeout()
        if mask & OUT and self._queue and not self._wanted & OUT:
            self._flush(wait=False)
        if self._wanted and mask & (self._wanted | PEER_CLOSED | LOST):
            self._wake()

    def _wake(self) -> None:
        core = self._core
        if self._wanted and core.serial == self._serial and core.waiting:
            self._wanted = 0
            if core.is_current():
                return
            core.hub.loop.call_soon(self._resume)

    def _resume(self) -> None:
        core = self._core
        if core.serial == self._serial and core.waiting:
            core.hub.resume(core)
