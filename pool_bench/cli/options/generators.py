"""Options that say how many processes generate the load, and where these run."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.errors import UsageError

if TYPE_CHECKING:
    from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec
    from pool_bench.targets import Target

    _Spec = TypeVar("_Spec", ConnectSpec, HoldSpec, PoolSpec)

AUTO: Final = "auto"
# Each is a Python of some 50 MB; it bounds what a slip of the finger costs.
MAX_PROCESSES: Final = 256


class Processes(click.ParamType[int]):
    """How many processes, or `auto`, which is 0."""

    name = "processes"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        if value == AUTO:
            return 0
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {AUTO}", param, ctx)
        if not 1 <= number <= MAX_PROCESSES:
            self.fail(f"must be from 1 to {MAX_PROCESSES}, or {AUTO}", param, ctx)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorOptions:
    """Who generates the load.

    Attributes:
        processes: how many processes; 0 for as many as this machine has cores.
        per_process: results of each, too.
        pin: each stays on a core of its own, as far as there are enough.
    """

    processes: int = 1
    per_process: bool = False
    pin: bool = False

    @property
    def is_auto(self) -> bool:
        """Whether the machine says how many."""
        return self.processes == 0

    def config(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """The settings, for the result file; none where they are the usual ones."""
        if self == ONE_PROCESS:
            return {}
        return {"processes": self.processes or AUTO, "pin": self.pin}

    def most(self) -> int:
        """How many processes there may be: as asked for, or one for each core that this one may use."""
        if not self.is_auto:
            return self.processes
        from pool_bench.load.thread_time import usable_cores

        return min(max(int(usable_cores()), 1), MAX_PROCESSES)

    def ask(self, spec: "_Spec") -> "_Spec":
        """The same, to be done by as many processes as were asked for.

        Raises:
            UsageError: they cannot be kept on cores.
        """
        return replace(spec, processes=self.most(), cpus=cores_beside(spec.targets) if self.pin else ())

    def fit(self, spec: "_Spec") -> "_Spec":
        """The same, with no more processes than have something to do, where the machine says how many.

        Raises:
            UsageError: the user said how many, and one would have nothing to do.
        """
        if spec.processes == 1:
            return spec
        from pool_bench.load.division import most_processes, too_few

        if self.is_auto and (limit := most_processes(spec)) is not None:
            spec = replace(spec, processes=min(spec.processes, limit))
        if spec.processes > 1 and (short := too_few(spec)):
            raise UsageError(short)
        return spec


def cores_beside(targets: "tuple[Target, ...]") -> tuple[int, ...]:
    """The cores that generators are to stay on: those that a local server of `targets` does not keep to.

    Where it may use all that we may, or none is seen, these are all of them. The last ones come first: the
    first ones are where interrupts are usually handled.

    Raises:
        UsageError: this system does not tell cores apart.
    """
    import os

    if not hasattr(os, "sched_getaffinity"):
        raise UsageError("--pin: this system does not keep processes on cores")
    from pool_bench.watch.machine.limits import LimitsReader

    reader = LimitsReader(targets)
    reader.begin()
    ours = os.sched_getaffinity(0)
    theirs: set[int] = set()
    for process in reader.processes():
        try:
            theirs |= os.sched_getaffinity(process.pid)
        except OSError:
            continue  # it is gone, or hidden
    return tuple(sorted((ours - theirs) or ours, reverse=True))


ONE_PROCESS: Final = GeneratorOptions()

# The command gets them as one `GeneratorOptions`, named `generators`.
generator_options = gathered(
    "generators",
    GeneratorOptions,
    click.option(
        "--processes",
        type=Processes(),
        default="1",
        show_default=True,
        metavar="N|auto",
        help="Generate the load in N processes, which share it exactly; auto: one for each core, and with "
        "--find-max as many as it takes.",
    ),
    click.option("--per-process", is_flag=True, help="Results of each generator process, too."),
    click.option(
        "--pin",
        is_flag=True,
        help="Keep each generator process on a core, where possible not on one that a local server keeps to.",
    ),
)
