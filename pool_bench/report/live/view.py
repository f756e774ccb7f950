"""What every live view can do, and which one a stream and a run get."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from pool_bench.stats.runs import Snapshot

if TYPE_CHECKING:
    from pool_bench.report.live.hold_lines import Slots


class LiveView(Protocol):
    """Shows a run while it lasts. Nothing is drawn except inside a call, so a view needs no thread."""

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """A run begins: number `index` (from 1) of `total`, 0 where nobody knows.

        `duration_s`, like `warmup_s` in seconds, is 0 where it lasts until stopped.
        """

    def update(self, snapshot: Snapshot) -> None:
        """Another second has passed."""

    def end_run(self, *, last: bool = True) -> None:
        """The run is over; what was drawn stays if it was the `last` one, or the last that was announced."""

    def message(self, text: str) -> None:
        """Tell the user something in one line."""

    def close(self) -> None:
        """Give the terminal back. Safe to call twice, and after an error."""


class QuietView:
    """Shows nothing."""

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """Show nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def end_run(self, *, last: bool = True) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to give back."""


def make_view(
    stream: TextIO,
    *,
    stream_is_terminal: bool,
    quiet: bool = False,
    targets: Sequence[str] = (),
    unit: str = "conn/s",
) -> LiveView:
    """The view that fits `stream`: Rich on a terminal, lines elsewhere, none when `quiet`.

    Args:
        stream: where to draw; the caller keeps it.
        stream_is_terminal: usually `stream.isatty()`.
        quiet: draw nothing.
        targets: printable names of the targets, in the order of `Snapshot.targets`.
        unit: what is counted a second.
    """
    if quiet:
        return QuietView()
    if stream_is_terminal:
        # Rich costs 50 ms of start-up, which only a terminal should pay.
        from pool_bench.report.live.operation_terminal import OperationTerminalView

        return OperationTerminalView(stream, targets=targets, unit=unit)
    from pool_bench.report.live.lines import OperationLineView

    return OperationLineView(stream, unit=unit)


def make_hold_view(
    stream: TextIO,
    *,
    stream_is_terminal: bool,
    asked: int,
    quiet: bool = False,
    targets: Sequence[str] = (),
    active: bool = False,
    slots: "Slots | None" = None,
) -> LiveView:
    """The view that fits `stream`: Rich on a terminal, lines elsewhere, none when `quiet`.

    Args:
        stream: where to draw; the caller keeps it.
        stream_is_terminal: usually `stream.isatty()`.
        asked: connections to all targets together that were asked for.
        quiet: draw nothing.
        targets: printable names of the targets, in the order of `Snapshot.targets`.
        active: some connections never rest (`--active`): show their queries.
        slots: gives the server's slots in use and its `max_connections`, None while they are not known;
            called once a second, and must not wait. Without it nothing is said about slots.
    """
    if quiet:
        return QuietView()
    if stream_is_terminal:
        # Rich costs 50 ms of start-up, which only a terminal should pay.
        from pool_bench.report.live.hold_terminal import HoldTerminalView

        return HoldTerminalView(stream, asked=asked, targets=targets, active=active, slots=slots)
    from pool_bench.report.live.hold_lines import HoldLineView

    return HoldLineView(stream, asked=asked, active=active, slots=slots)
