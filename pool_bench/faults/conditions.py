"""What a network does to the connections that cross it."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """What becomes of a connection.

    Attributes:
        PASS: it works.
        REFUSE: nothing listens, and the kernel answers ECONNREFUSED; what exists goes on working.
        RESET: it is accepted, counted and reset at once; what exists goes on working.
        HOLE: it is accepted and nothing moves, as across a partition; likewise on those that exist.
            Bytes are held back, not lost: they arrive when the partition is over, as TCP would have it.
    """

    PASS = "pass"  # noqa: S105 - not a password
    REFUSE = "refuse"
    RESET = "reset"
    HOLE = "hole"


class Cut(StrEnum):
    """How a connection ends that is cut: with a RST, or with a FIN as if the other side had closed it."""

    RST = "rst"
    FIN = "fin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a proxy treats its connections from now on, those that exist included.

    Attributes:
        mode: what becomes of them.
        connect_delay_s: wait before a new connection is continued to the server.
        to_server_delay_s: latency of each byte on its way to the server; up to 1 MiB is on its way at a time.
        to_client_delay_s: the same on the way back.
        bytes_per_s: throughput of each direction of each connection; None is unlimited.

    Raises:
        ValueError: a delay is negative or no number, or the throughput is not above 0; names the field.
    """

    mode: Mode = Mode.PASS
    connect_delay_s: float = 0.0
    to_server_delay_s: float = 0.0
    to_client_delay_s: float = 0.0
    bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect_delay_s", "to_server_delay_s", "to_client_delay_s"):
            value: float = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of seconds from 0 on, not {value}")
        if self.bytes_per_s is not None and not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s must be above 0, not {self.bytes_per_s}")


PASS: Final = Conditions()
