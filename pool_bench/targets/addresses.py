"""Socket addresses as Python's `socket` has them, and as people read them."""

from functools import lru_cache

# What `connect` takes: of IPv4, of IPv6, of a Unix socket.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str


@lru_cache(maxsize=1024)
def label_of(address: SocketAddress) -> str:
    """`127.0.0.1:5432`, `[::1]:5432`, or the path of a Unix socket."""
    if isinstance(address, str):
        return address.replace("\0", "@")
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
