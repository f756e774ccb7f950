"""The first signal asks for an end, the second for one at once; an echo of the first is neither."""

import os
import signal

import pytest

from pool_bench.cli import signals
from pool_bench.cli.signals import LeaveNow, stop_on_signals


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_after_any_signal_leaves_at_once(first: signal.Signals) -> None:
    said: list[str] = []
    with stop_on_signals(said.append) as stop:
        os.kill(os.getpid(), first)
        assert stop.requested
        with pytest.raises(LeaveNow):
            os.kill(os.getpid(), signal.SIGINT)
    assert len(said) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_sent_to_process_and_group_counts_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(signals, "monotonic", lambda: now_s)
    said: list[str] = []
    with stop_on_signals(said.append) as stop:
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert stop.requested
        now_s += 2
        with pytest.raises(LeaveNow):
            os.kill(os.getpid(), number)
    assert len(said) == 1


def test_what_was_handled_before_is_handled_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
