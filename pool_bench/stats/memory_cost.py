"""What one more connection costs in memory, where that can be said."""

from typing import Final

# Fewer connections, or less growth, is within what a server's processes move by without any.
SERVER_FEWEST: Final = 20
SERVER_LEAST_BYTES: Final = 1 << 20
# Connections of a generator, or clients of PgBouncer, are small, and the memory of one process moves less.
CLIENT_FEWEST: Final = 100
CLIENT_LEAST_BYTES: Final = 1 << 18


def server_cost_each(grown_bytes: int, further: int) -> int | None:
    """Server memory for each of `further` connections, bytes; None where too little grew to say."""
    if further < SERVER_FEWEST or grown_bytes < SERVER_LEAST_BYTES:
        return None
    return round(grown_bytes / further)


def client_cost_each(grown_bytes: int, held: int) -> float | None:
    """Client memory for each connection held, bytes; None where too little grew to say."""
    if held < CLIENT_FEWEST or grown_bytes < CLIENT_LEAST_BYTES:
        return None
    return grown_bytes / held
