"""Options that say how many processes generate the load, and where these run."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.errors import UsageError

if TYPE_CHECKING:
    from pool_bench.load.cluster.crew import ClusterCrew
    from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec
    from pool_bench.targets import Target

    _Spec = TypeVar("_Spec", ConnectSpec, HoldSpec, PoolSpec)

AUTO: Final = "auto"
# Each is a Python of some 50 MB; it bounds what a slip of the finger costs.
MAX_PROCESSES: Final = 256
_CLUSTER: Final = re.compile(r"local(:[1-9]\d{0,2})?|(tcp|tls)://[^\s/@?#]+:\d{1,5}")
_LOCAL_WORKERS: Final = 2


class Cluster(click.ParamType[str]):
    """The address of a Dask scheduler, or `local[:N]`."""

    name = "cluster"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read the text."""
        if not _CLUSTER.fullmatch(value):
            self.fail(
                f"{value!r} is neither tcp://HOST:PORT, tls://HOST:PORT nor local[:N], with N workers",
                param,
                ctx,
            )
        return value


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
        cluster: whose workers start them, each as many; None for this machine.
        workers: how many those are, known once they were gathered.
        cores: of each worker, for one process each.
    """

    processes: int = 1
    per_process: bool = False
    pin: bool = False
    cluster: str | None = None
    workers: int = 1
    cores: int = 1

    @property
    def is_local(self) -> bool:
        """Whether all of it happens on this machine."""
        return self.cluster is None or self.cluster.startswith("local")

    @property
    def in_all(self) -> int:
        """How many processes that are, the cluster's workers being known."""
        return (self.processes or self.cores) * self.workers

    @property
    def is_auto(self) -> bool:
        """Whether the machine says how many."""
        return self.processes == 0

    def config(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """The settings, for the result file; none where they are the usual ones."""
        if self == ONE_PROCESS:
            return {}
        settings: dict[str, str | int | float | bool | list[str] | None] = {
            "processes": self.processes or AUTO,
            "pin": self.pin,
        }
        if self.cluster is not None:
            settings |= {"cluster": self.cluster, "workers": self.workers}
        return settings

    def gather(
        self, source_ips: tuple[str, ...], say: Callable[[str], None]
    ) -> "AbstractContextManager[ClusterCrew]":
        """The cluster's workers.

        Raises:
            UsageError: on entry, they cannot be used; or what talks to them is not installed.
        """
        assert self.cluster is not None  # noqa: S101  # asked only then
        try:
            from pool_bench.load.cluster.opening import gathered_crew
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in ("dask", "distributed"):
                raise
            raise UsageError("--cluster needs Dask; install pool-bench[cluster]") from None
        name, _, number = self.cluster.partition(":")
        where = int(number or _LOCAL_WORKERS) if name == "local" else self.cluster
        return gathered_crew(where, pin=self.pin, source_ips=source_ips, say=say)

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
        if self.cluster is not None:
            # How many of a worker's cores there are is known once it is there; so is which ones they are.
            return replace(spec, processes=self.processes)
        return replace(spec, processes=self.most(), cpus=cores_beside(spec.targets) if self.pin else ())

    def fit(self, spec: "_Spec") -> "_Spec":
        """The same, with no more processes than have something to do, where the machine says how many.

        Raises:
            UsageError: the user said how many, and one would have nothing to do.
        """
        if self.cluster is not None:
            spec = replace(spec, processes=(spec.processes or self.cores) * self.workers)
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
_OPTIONS: Final = (
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
generator_options = gathered("generators", GeneratorOptions, *_OPTIONS)
# The same for commands whose load other machines can generate.
cluster_options = gathered(
    "generators",
    GeneratorOptions,
    *_OPTIONS,
    click.option(
        "--cluster",
        type=Cluster(),
        metavar="ADDRESS",
        help="Let the workers of a Dask cluster generate the load, each with --processes: tcp://HOST:PORT or "
        "tls://HOST:PORT of its scheduler, or local[:N] for N workers here (2). Needs pool-bench[cluster].",
    ),
)
