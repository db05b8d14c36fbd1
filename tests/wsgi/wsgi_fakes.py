"""Fakes of what stands around corelet.wsgi: a writer that keeps the bytes, and a peer that sends a body in pieces."""

from corelet.base.errors import BodyError
from corelet.wsgi.response import Response


class FakeWriter:
    """Keeps every send apart. `events` also holds what a test adds to it, so that an order can be checked."""

    def __init__(self, chunked: bool = False) -> None:
        self.events: list = []
        self.chunked = chunked
        self.failure: BaseException | None = None

    def send(self, *buffers: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(b"".join(buffers))

    def send_last(self, *buffers: bytes) -> None:
        self.send(*buffers)

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        self.send(head)
        self.events.append(("file", offset, count))

    def head_end(self, response: Response, length: int | None) -> str:
        if length is not None and response.length is None and not response.bodyless:
            return f"Content-Length: {length}\r\n\r\n"
        if self.chunked and length is None and response.length is None and not response.bodyless:
            response.chunked = True
            return "Transfer-Encoding: chunked\r\n\r\n"
        return "\r\n"

    @property
    def data(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))


class FakePeer:
    """receive(max_bytes) that gives the pieces one by one, never more than asked for; `asked` are the sizes."""

    def __init__(self, *pieces: bytes, broken: bool = False) -> None:
        self.pieces = list(pieces)
        self.broken = broken
        self.asked: list[int] = []

    def __call__(self, max_bytes: int) -> bytes:
        assert max_bytes > 0
        self.asked.append(max_bytes)
        if not self.pieces:
            if self.broken:
                raise BodyError("the client closed the connection in the middle of the request's body")
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]


def environ(method: str = "GET") -> dict:
    """As little of an environ as the gateway may need."""
    return {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": "/"}
