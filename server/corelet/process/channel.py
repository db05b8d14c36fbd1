"""The line between the master and one worker: a pair of SOCK_SEQPACKET sockets, a word and a text in each packet.

    master -> worker   drain SECONDS, stop SECONDS (nobody accepts any more), hurry, quit, pause, resume,
                       reopen (with the descriptor of the new log), signal NUMBER
    worker -> master   ready, failed CODE TEXT, leaving WHY, recycle WHY, stubborn WHY, changed PATH, written PATH,
                       registers JSON (api/registry.py), raise NUMBER, awaits NUMBER, awaits-not NUMBER,
                       reload, stop (the application wants it)

Packets keep their borders, so there is nothing to parse. Neither side ever waits for the other: what a full socket
does not take is dropped, and the master has its clock and SIGKILL for those who do not listen. The end of the line is
an answer too: a worker whose master is gone ends in order.
"""

from __future__ import annotations

import os
import socket

MAX_PACKET_BYTES = 60_000


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.ended = False
        self.descriptor: int | None = None

    @classmethod
    def adopted(cls, descriptor: int) -> Channel:
        """The end that this descriptor is (after a re-exec). No child of ours gets it from here on."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=descriptor))

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._sock.fileno()

    def send(self, word: str, text: str = "", descriptor: int | None = None) -> bool:
        """Send, if the other side takes it; with a copy of the descriptor, if one is given. Never raises.

        Returns whether it was taken.
        """
        packet = f"{word} {text}".strip().encode("utf-8", "backslashreplace")[:MAX_PACKET_BYTES]
        try:
            if descriptor is None:
                self._sock.send(packet)
            else:
                socket.send_fds(self._sock, [packet], [descriptor])
        except OSError:
            return False
        return True

    def receive(self) -> list[tuple[str, str]]:
        """All that has come, as (word, text). After the last packet of a line that has ended, `ended` is true."""
        found = []
        while not self.ended:
            try:
                packet, descriptors, _flags, _address = socket.recv_fds(self._sock, MAX_PACKET_BYTES, 1)
                for descriptor in descriptors:
                    self._take(descriptor)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if packet:
                word, _, text = packet.decode("utf-8", "replace").partition(" ")
                found.append((word, text))
            else:
                self.ended = True
        return found

    def _take(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = descriptor

    def take_descriptor(self) -> int | None:
        """The descriptor that came last; it is the caller's from now on."""
        descriptor, self.descriptor = self.descriptor, None
        return descriptor

    def survive_exec(self, survives: bool = True) -> int:
        """Let the descriptor survive an exec, or not; returns it."""
        os.set_inheritable(self._sock.fileno(), survives)
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends: the master's, the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
