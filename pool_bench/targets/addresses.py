"""Socket addresses as Python's `socket` has them, and as people read them."""

from dataclasses import dataclass
from functools import lru_cache

# What `connect` takes: of IPv4, of IPv6, of a Unix socket.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a target, as far as it is known before any look-up.

    Attributes:
        shown: names it for people.
        name: the host's name or numeric address; "" for a Unix socket.
        port: TCP port, 0 for a Unix socket.
        path: of the Unix socket, an abstract one with a zero byte first; "" for TCP.
    """

    shown: str
    name: str = ""
    port: int = 0
    path: str = ""


@lru_cache(maxsize=1024)
def label_of(address: SocketAddress) -> str:
    """`127.0.0.1:5432`, `[::1]:5432`, or the path of a Unix socket."""
    if isinstance(address, str):
        return address.replace("\0", "@")
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
