"""Where a server may listen: loopback and unix sockets. Anything else needs TLS, which is not built yet."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.errors import AddressError

_LONGEST_PATH = 100  # bytes; the kernel takes 107, other systems 103


@dataclass(frozen=True)
class Address:
    """A place to listen at or to connect to. `target` is how gRPC spells it; `path` the socket file, or None for TCP."""

    target: str
    path: Path | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH; port 0 lets the system choose. Raises AddressError."""
        if text.startswith("unix:"):
            return cls._unix(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise AddressError(f"{text!r} is no address; write 127.0.0.1:50051, [::1]:50051 or unix:PATH")
        # A name is never looked up: what it resolves to is not ours to decide. localhost means the loopback address itself.
        bare = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
        try:
            ip = ipaddress.ip_address(bare)
        except ValueError:
            raise AddressError(f"{host!r} is not an IP address; write 127.0.0.1, [::1], localhost, or unix:PATH") from None
        if not ip.is_loopback:
            raise AddressError(f"{text} can be reached from other machines, and TLS is not built yet; use 127.0.0.1, [::1] or unix:PATH")
        return cls(f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}", None)

    @classmethod
    def _unix(cls, name: str) -> Address:
        path = Path(name).absolute()
        if not name or len(os.fsencode(path)) > _LONGEST_PATH:
            raise AddressError(f"a socket's path has 1 to {_LONGEST_PATH} bytes, this one {len(os.fsencode(path)) if name else 0}")
        return cls(f"unix:{path}", path)

    def claim(self) -> None:
        """Make way for listening at a socket file: removes one that no process listens on. Raises AddressError when it is in use.

        gRPC would take a socket away from a server that is running.
        """
        if self.path is None:
            return
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise AddressError(f"no directory {self.path.parent} for the socket") from None
            return
        if not stat.S_ISSOCK(mode):
            raise AddressError(f"{self.path} is there and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except OSError as error:
                raise AddressError(f"{self.path} cannot be used ({error.strerror})") from None
        raise AddressError(f"another process serves at {self.path}")
