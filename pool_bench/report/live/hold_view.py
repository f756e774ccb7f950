"""Which live view a run that holds connections gets."""

from collections.abc import Sequence
from typing import TextIO

from pool_bench.report.live.hold_lines import HoldLineView, Slots
from pool_bench.report.live.view import LiveView, QuietView


def make_hold_view(
    stream: TextIO,
    *,
    stream_is_terminal: bool,
    asked: int,
    quiet: bool = False,
    targets: Sequence[str] = (),
    active: bool = False,
    slots: Slots | None = None,
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
    return HoldLineView(stream, asked=asked, active=active, slots=slots)
