"""Where a server listens and where a client finds it. What an address needs to be safe is `auth.Security`'s business."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from glyph_rt.errors import AddressError

_LONGEST_PATH = 100  # bytes; the kernel takes 107, other systems 103
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


@dataclass(frozen=True)
class Address:
    """A place to listen at or to connect to. `target` is how gRPC spells it; `path` the socket file, or None for TCP."""

    target: str
    path: Path | None
    local: bool  # only this machine reaches it

    @classmethod
    def parse(cls, text: str, *, names: bool = False) -> Address:
        """127.0.0.1:PORT, [::1]:PORT, localhost:PORT, any other IP:PORT, or unix:PATH; port 0 lets the system choose.

        names: host names too, for a client, which checks by certificate whom the name led it to. A server does not look names up:
        what they resolve to is not its to decide. Raises AddressError.
        """
        if text.startswith("unix:"):
            return cls._unix(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise AddressError(f"{text!r} is no address; write 127.0.0.1:50051, [::1]:50051 or unix:PATH")
        bare = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
        try:
            ip = ipaddress.ip_address(bare)
        except ValueError:
            if names and _NAME.fullmatch(host):
                return cls(f"dns:///{host}:{int(port)}", None, False)
            raise AddressError(f"{host!r} is not an IP address; write 127.0.0.1, [::1], localhost, or unix:PATH") from None
        return cls(f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}", None, ip.is_loopback)

    @classmethod
    def _unix(cls, name: str) -> Address:
        path = Path(name).absolute()
        if not name or len(os.fsencode(path)) > _LONGEST_PATH:
            raise AddressError(f"a socket's path has 1 to {_LONGEST_PATH} bytes, this one {len(os.fsencode(path)) if name else 0}")
        return cls(f"unix:{path}", path, True)

    def at(self, port: int) -> Address:
        """This address with the port that the system chose."""
        return self if self.path else Address(f"{self.target.rpartition(':')[0]}:{port}", None, self.local)

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
