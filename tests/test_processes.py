"""Processes that Ctrl-C does not reach, at any moment of their lives."""

import json
import multiprocessing as mp
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pool_bench.processes import ignore_interrupts, start_ignoring_interrupts, start_module


def answer(control: "Connection[str, str]") -> None:
    """The target: nothing of it has run when the first interrupt comes."""
    ignore_interrupts()
    control.send("ready")
    control.recv()
    control.send(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_an_interrupt_ends_it_neither_while_it_starts_nor_later() -> None:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,), daemon=True)
    start_ignoring_interrupts(process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert ours.poll(30)
    assert ours.recv() == "ready"
    os.kill(process.pid, signal.SIGINT)
    ours.send("go on")
    assert ours.poll(30)
    # What it starts in turn is not to inherit a blocked signal.
    assert ours.recv() == "False"
    process.join(30)
    assert process.exitcode == 0


def test_the_parent_hears_it_as_before() -> None:
    context = mp.get_context("spawn")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    process = context.Process(target=ignore_interrupts, daemon=True)
    start_ignoring_interrupts(process)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    process.join(30)
    assert process.exitcode == 0


def environment_of_itself(answers: "Connection[bytes, bytes]") -> None:
    """The target: what anybody who may look finds in `/proc/PID/environ`."""
    answers.send(Path("/proc/self/environ").read_bytes())


def test_it_gets_none_of_our_passwords_and_we_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "DATABASE_URL", "SURREAL_PASS", "SURREAL_URL"):
        monkeypatch.setenv(name, "hush-hush")
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=environment_of_itself, args=(theirs,), daemon=True)
    start_ignoring_interrupts(process)
    assert ours.poll(30)
    environment = ours.recv()
    process.join(30)
    assert b"PATH=" in environment
    assert b"hush-hush" not in environment
    assert os.environ["PGPASSWORD"] == "hush-hush"


def test_a_module_that_is_started_has_our_path_and_neither_our_main_nor_passwords_nor_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hush-hush")
    monkeypatch.syspath_prepend("/somewhere/of ours")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ours, theirs = mp.Pipe()
    with theirs:
        process = start_module("tests.support.told_process", theirs.fileno())
    os.kill(process.pid, signal.SIGINT)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert os.environ["PGPASSWORD"] == "hush-hush"
    assert ours.poll(30)
    begun = json.loads(ours.recv())
    assert begun["blocked"]
    assert begun["main"] is None
    assert begun["path"] == sys.path
    assert "PATH=" in begun["environment"]
    assert "hush-hush" not in begun["environment"]
    os.kill(process.pid, signal.SIGINT)
    ours.send("go on")
    assert ours.poll(30)
    # What it starts in turn is not to inherit a blocked signal.
    assert ours.recv() == "False"
    assert process.wait(30) == 0
