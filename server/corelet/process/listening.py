"""The listening socket as a thing that outlives much: what has to be known of it until its end goes along with it.

It outlives the privileges it was bound with, the configuration that named it, and even the program: `handover` and
`from_handover` carry it over an exec. A unix socket's file is removed only while it is still the file that was made
here, since a new server may have taken its place by then, and never if somebody else made it.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any, Self

from corelet.base.address import Address
from corelet.base.errors import BindError
from corelet.process.inherited import look_at
from corelet.process.unix_sockets import remove_if_same

FAMILIES = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX, "abstract": socket.AF_UNIX}


class ListeningSocket(socket.socket):
    """A listening, non-blocking socket that knows its address.

    `file` is the file of a unix socket that was made here: absolute path, device, inode. `handed` says that somebody
    else opened it (systemd, fd://), who may have it open still.
    """

    def __init__(self, family: socket.AddressFamily, address: Address, fileno: int | None = None) -> None:
        super().__init__(family, socket.SOCK_STREAM, 0, fileno)
        self.address = address
        self.file: tuple[str, int, int] | None = None
        self.handed = False

    @classmethod
    def made(cls, address: Address) -> Self:
        """An unbound socket of the address's family. Raises BindError where the machine has no such family."""
        try:
            return cls(FAMILIES[address.kind], address)
        except OSError as error:
            raise BindError(f"cannot make a socket for {address.label}: {error.strerror}") from error

    @classmethod
    def adopted(cls, address: Address, descriptor: int, file: tuple[str, int, int] | None = None) -> Self:
        """The socket of a descriptor that listens already; it is owned, and closed on exec, from now on."""
        sock = cls(FAMILIES[address.kind], address, descriptor)
        sock.set_inheritable(False)
        sock.setblocking(False)
        sock.file = file
        return sock

    def handover(self) -> dict[str, Any]:
        """What `from_handover` needs after an exec, as JSON takes it. The caller makes the descriptor inheritable."""
        return {
            **dataclasses.asdict(self.address),
            "fileno": self.fileno(),
            "file": None if self.file is None else list(self.file),
            "handed": self.handed,
        }

    @classmethod
    def from_handover(cls, data: dict[str, Any]) -> Self:
        """The socket that `handover` described, in the program that came after. Raises BindError if it is not there.

        Unknown keys are passed over: the program before may have been a later version.
        """
        names = {field.name for field in dataclasses.fields(Address)}
        address = Address(**{name: value for name, value in data.items() if name in names})
        look_at(data["fileno"], f"{address.label}, from the program before")
        path, device, inode = data["file"] or ("", 0, 0)
        sock = cls.adopted(address, data["fileno"], (path, device, inode) if path else None)
        sock.handed = data["handed"]
        return sock

    @property
    def name(self) -> str:
        """The address in full, with the port that the kernel chose if 0 was asked for; for the log."""
        if not self.address.is_tcp:
            return self.address.label
        host, port = self.getsockname()[:2]
        return f"[{host}]:{port}" if self.address.kind == "tcp6" else f"{host}:{port}"

    def retire(self, vacuum: bool) -> None:
        """Close the socket and, with `vacuum`, remove its file if it is still ours. Never raises."""
        self.close()
        if self.file is not None and vacuum:
            remove_if_same(self.file)
