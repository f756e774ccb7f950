"""What a watcher needs of whatever looks at a server, one look at a time."""

from typing import Literal, Protocol

from pool_bench.stats.server import ServerObservation

When = Literal["before", "during", "peak", "after"]


class Sampler(Protocol):
    """Looks at one server and gathers what it sees; used by one thread."""

    @property
    def side(self) -> ServerObservation:
        """What was seen so far."""

    def sample(self, t: float, when: When | None = None) -> None:
        """Look at everything, `t` seconds after the beginning; with the memory sample `when`, if any."""

    def begin(self, origin_s: float, wall_s: float, *, expected: bool = False) -> None:
        """Say when the run's own clock is at 0, or at the earliest where that is only `expected`.

        Args:
            origin_s: seconds since the watching began.
            wall_s: seconds since 1970.
            expected: a warm-up is still under way; it is said again at its end.
        """

    def forget_before(self) -> None:
        """Leave out the look before the run: it came too late."""

    def surplus(self, t: float) -> int:
        """How many connections there are more than before the run; 0 where that is not known."""

    def finish(self) -> None:
        """Let go of the server, and say what could not be seen."""
