"""The first signal asks for an end, the second for one at once, the third ends; an echo is none of them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

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


def test_what_ends_a_command_within_another_ends_both_and_also_those_that_would_follow() -> None:
    with stop_on_signals(lambda _: None) as outer:
        with stop_on_signals(lambda _: None) as inner:
            os.kill(os.getpid(), signal.SIGINT)
            assert inner.requested
            assert outer.requested
        with stop_on_signals(lambda _: None) as follows:
            assert follows.requested
    with stop_on_signals(lambda _: None) as another:
        assert not another.requested


HELD_UP = """
import os, signal, sys, time
from pool_bench.cli.signals import LeaveNow, stop_on_signals

with stop_on_signals(lambda text: os.write(1, b"asked\\n")) as stop:
    try:
        os.write(1, b"ready\\n")
        while True:
            time.sleep(60)
    finally:
        os.write(1, b"leaving\\n")
        while True:
            time.sleep(60)
"""


def test_a_third_signal_ends_a_process_that_is_held_up_while_leaving_and_shows_the_cursor() -> None:
    parent, child = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", HELD_UP], stdout=child, stderr=child)
    os.close(child)
    seen = b""
    try:
        for expected in (b"ready", b"asked", b"leaving"):
            while expected not in seen:
                seen += os.read(parent, 1000)
            process.send_signal(signal.SIGINT)
        with suppress(OSError):  # that is how the end of a terminal shows
            while data := os.read(parent, 1000):
                seen += data
        assert process.wait(60) == 130
        assert seen.endswith(b"leaving\r\n\x1b[?25h\r\n")
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def test_ctrl_c_while_python_still_imports_is_one_line() -> None:
    script = (
        "import os, signal, sys; sys.argv[0] = '/somewhere/bin/pg-connection-bench'; "
        "import pool_bench.cli.early; os.kill(os.getpid(), signal.SIGINT)"
    )
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (outcome.returncode, outcome.stdout) == (130, "")
    assert outcome.stderr == "left before anything was measured\n"


@pytest.mark.parametrize(
    "command", ["pg_connection_bench", "pg_connection_load", "surreal_bench", "pool_bench"]
)
def test_every_command_cares_for_ctrl_c_before_it_imports_anything(command: str) -> None:
    script = f"""
import builtins, signal, sys
sys.argv[0] = "{command}.py" if "{command}" != "pool_bench" else "pool_bench/__main__.py"
real, imported = builtins.__import__, []
def watched(name, *rest):
    if name.split(".")[0] == "click":
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        raise SystemExit
    return real(name, *rest)
builtins.__import__ = watched
import {command if command != "pool_bench" else "pool_bench.__main__"}
"""
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert outcome.stdout == "False\n", outcome.stderr


def test_a_process_that_is_no_command_keeps_its_own_way_with_ctrl_c() -> None:
    script = (
        "import signal, pool_bench.cli.early as e; print(signal.getsignal(2) is signal.default_int_handler)"
    )
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert outcome.stdout == "True\n"
