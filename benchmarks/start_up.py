"""What a command costs beside its load: CPU of all its processes for one second of measuring.

Runs `pg-connection-bench -d 1s --warmup 0s` on the embedded server, once with and once without a picture,
and counts the CPU time of the whole tree of processes: the command, its generator, whatever draws, the server
from its making to its end. `--other` lets another checkout take part, by the interpreter of its environment;
all take turns, round after round, and medians and their ratios are printed. The second that is measured is
part of it, and what is done in it differs: beside other work the embedded server gives way since 2026-11-29
and serves less than before. With `--rate` each does the same.

    uv run python benchmarks/start_up.py
    uv run python benchmarks/start_up.py --other ../before/.venv/bin/python --rate 50
    uv run python benchmarks/start_up.py --other ../before/.venv/bin/python --no-bytecode
"""

import ctypes
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Final

import click

_COMMAND: Final = ("-m", "pg_connection_bench", "-d", "1s", "--warmup", "0s")
# From <linux/prctl.h>.
_SET_CHILD_SUBREAPER: Final = 36
_WAYS: Final = {"with a picture": (), "without": ("--no-save",)}


def cpu_of(python: str, arguments: tuple[str, ...], environment: dict[str, str]) -> tuple[float, float]:
    """CPU time of the command and all that it started, and how long it took, seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        # From a directory without sources: -m prefers those of the present one to the environment's.
        subprocess.run(
            [python, *_COMMAND, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=directory,
        )
        took_s = perf_counter() - began
        _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, took_s


def _reap() -> None:
    """Wait for what the command has left behind, which is ours by now: it counts as well."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


@click.command()
@click.option("--rounds", default=7, show_default=True, help="How often each is measured.")
@click.option(
    "--other",
    type=click.Path(exists=True, dir_okay=False),
    help="Python of another checkout's environment, which takes part.",
)
@click.option(
    "--bytecode/--no-bytecode",
    default=True,
    show_default=True,
    help="Whether modules are compiled once, as where the tool is installed, or by every process.",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    help="Connections to open in the second. [default: as many as can be]",
)
def main(rounds: int, other: str | None, bytecode: bool, rate: int | None) -> None:
    """Measure all in turn and print a table."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pythons = {"this": sys.executable}
    if other is not None:
        # Not resolved: the interpreter of an environment is a link whose place says which it is.
        pythons["other"] = str(Path(other).absolute())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not bytecode:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    load = () if rate is None else ("--rate", str(rate))
    contenders = list(product(pythons, _WAYS))
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {each: [] for each in contenders}
    with click.progressbar(length=(rounds + 1) * len(contenders), file=sys.stderr) as progress:
        for number in range(rounds + 1):
            for name, way in contenders if number % 2 else reversed(contenders):
                sample = cpu_of(pythons[name], (*load, *_WAYS[way]), environment)
                # The first round reads files from the disk and compiles.
                if number:
                    samples[name, way].append(sample)
                progress.update(1)
    print(f"CPU seconds of all processes, median of {rounds}, modules {'' if bytecode else 'not '}compiled")
    print(f"{'':24}{'CPU s':>8}{'min-max':>14}{'wall s':>9}")
    medians = {each: statistics.median(cpu for cpu, _ in taken) for each, taken in samples.items()}
    for (name, way), taken in samples.items():
        cpus = [cpu for cpu, _ in taken]
        span = f"{min(cpus):.2f}-{max(cpus):.2f}"
        wall = statistics.median(took_s for _, took_s in taken)
        print(f"{name + ' ' + way:24}{medians[name, way]:>8.2f}{span:>14}{wall:>9.2f}")
    if other is not None:
        for way in _WAYS:
            print(f"this is {medians['this', way] / medians['other', way]:.2f} x other, {way}")


if __name__ == "__main__":
    main()
