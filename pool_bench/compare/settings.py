"""What a setting is: which runs are rounds of the same one, and what tells two of them apart.

A setting is known by what was asked of it, never by its label, which may hold a round, or nothing but a
number of workers. Values of three sorts are told apart:

- levels, such as the concurrency or the scenario: runs of different levels answer different questions, as
  those of a sweep do, and are never compared;
- parameters, such as the pool's size, the query or the driver: runs that differ in one can be compared
  where that is what somebody wants to know, and are not by themselves;
- circumstances, such as the time a run took: they change how sure figures are, and are worth a note.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pool_bench.cleaning import clean
from pool_bench.results.model import ResultRecord
from pool_bench.results.parts import as_words
from pool_bench.results.run import RunRecord
from pool_bench.stats.runs import PoolSetting
from pool_bench.units import format_duration

# Loads that change while they are measured, because that is what they are for.
CHANGING: Final = ("burst", "ramp", "spike", "reconnect")
_SIZES: Final = "size"
_STRESS: Final = "stress"
_LEVELS: Final = frozenset(
    (
        "kind",
        "scenario",
        "concurrency",
        "connections",
        "shape",
        "rate",
        "clients of stress",
        "size of a sweep",
    )
)
_CIRCUMSTANCES: Final = frozenset(
    ("duration_s", "warmup_s", "connect_timeout_s", "timeout_s", "max_in_flight", "open_concurrency")
)
# What `config` says of every run of a file, in files whose runs do not say it themselves.
_OF_THE_FILE: Final = ("query", "auth", "scram_cache", "resolve")
_WORDS: Final = {"True": "yes", "False": "no"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a setting is.

    Attributes:
        levels, parameters, circumstances: their values by name, as people read them.
    """

    levels: Mapping[str, str]
    parameters: Mapping[str, str]
    circumstances: Mapping[str, str]

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """Alike for runs of the same setting, and only for those."""
        return (*sorted(self.levels.items()), *sorted(self.parameters.items()))


def identity_of(result: ResultRecord, run: RunRecord) -> Identity:
    """What `run` of `result` measured, its driver and its target aside."""
    setting = run.pool_setting
    if setting is not None:
        values = _of_pool(result, run, setting)
    elif run.hold is not None:
        values = {"kind": "held", "connections": f"{run.concurrency:,}", **as_words(run.parameters)}
    else:
        values = _of_cycles(result, run)
    if "shape" not in values and run.rate is not None and "open_rate" not in values:
        values["rate"] = f"{run.rate:g}/s"
    # Passwords never get here, but whatever else a file holds may.
    values = {name: clean(_WORDS.get(value, value)) for name, value in values.items()}
    return Identity(
        levels={name: value for name, value in values.items() if name in _LEVELS},
        parameters={
            name: value
            for name, value in values.items()
            if name not in _LEVELS and name not in _CIRCUMSTANCES
        },
        circumstances={name: value for name, value in values.items() if name in _CIRCUMSTANCES},
    )


def _of_pool(result: ResultRecord, run: RunRecord, setting: PoolSetting) -> dict[str, str]:
    clients = "clients of stress" if setting.scenario == _STRESS else "clients"
    if "shape" in run.parameters or run.rate is not None:
        clients = "max_in_flight"
    values = {
        "kind": "pool",
        "scenario": setting.scenario,
        clients: f"{setting.clients:,}",
        "size of a sweep" if setting.scenario == _SIZES else "size": setting.size_words,
        "hold": format_duration(setting.hold_s) or "0s",
        "reset": setting.reset,
        **({} if setting.prepared else {"prepared": "no"}),
        "query": setting.query or "",
        "timeout_s": f"{setting.timeout_s:g}",
        **as_words(run.parameters),
    }
    if setting.scenario == "reconnect":
        # How much of the time the server was away depends on both.
        config = as_words(result.config)
        values["outage"] = config.get("outage_s", "")
        values["length"] = values.pop("duration_s", config.get("duration_s", ""))
    return values


def _of_cycles(result: ResultRecord, run: RunRecord) -> dict[str, str]:
    values = {"kind": "cycles", **({"scenario": run.scenario} if run.scenario else {})}
    if run.rate is None:
        values["concurrency"] = f"{run.concurrency:,}"
    if run.parameters:
        return {**values, **as_words(run.parameters)}
    config = as_words(result.config)
    said = {name: config.get(name, "") for name in _OF_THE_FILE}
    if run.setting:
        said["setting"] = run.setting
    return {**values, **{name: value for name, value in said.items() if value or name == "query"}}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What differs between two settings, such as `size 2 and 20`; in the order of their values."""
    # A file of an older version says less; what it does not say is not known to differ.
    return [
        f"{_spoken(name)} {_value(name, value)} and {_value(name, other[name])}"
        for name, value in one.items()
        if name in other and other[name] != value
    ]


def _spoken(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _value(name: str, value: str) -> str:
    if not value:
        return "none"
    if name.endswith("_s"):
        try:
            return format_duration(float(value)) or "0s"
        except ValueError:
            return value
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """All rounds of one setting in one file."""

    result: ResultRecord
    runs: tuple[RunRecord, ...]

    @property
    def identity(self) -> Identity:
        """What it is."""
        return identity_of(self.result, self.runs[0])

    @property
    def label(self) -> str:
        """Names it in tables."""
        setting = self.runs[0].pool_setting
        if setting is None:
            return self.runs[0].label
        load = setting.scenario
        if self.runs[0].rate is not None:
            load += f" {self.runs[0].rate:g}/s"
        elif setting.scenario == _STRESS:
            load += f" {setting.clients:,}"
        # The scenario of a sweep of sizes says nothing that its size does not.
        return " · ".join((setting.name, *(() if load == _SIZES else (load,)), f"size {setting.size_words}"))

    @property
    def driver(self) -> str:
        """How connections were opened, or by which pool they were lent."""
        return self.runs[0].driver

    @property
    def is_hold(self) -> bool:
        """Whether its connections were held."""
        return self.runs[0].hold is not None

    @property
    def is_pool(self) -> bool:
        """Whether a pool lent its connections."""
        return self.runs[0].checkout is not None

    @property
    def is_changing(self) -> bool:
        """Whether its load changes while it is measured, so that only whole rounds tell what is noise."""
        return self.is_pool and self.runs[0].scenario in CHANGING

    @property
    def targets(self) -> str:
        """Where its connections went to; the embedded server is the same one on any port."""
        own = self.runs[0].target or ", ".join(self.result.targets)
        embedded = self.result.config.get("target_from") == "embedded" and own == self.result.target
        return "the embedded server" if embedded else own


def settings_of(result: ResultRecord) -> list[Setting]:
    """The settings of a file, in the order of their first runs; what could not begin is none."""
    groups: dict[tuple[object, ...], list[RunRecord]] = {}
    for run in result.runs:
        if not run.not_started:
            key = (run.setting, run.driver, run.target, identity_of(result, run).key)
            groups.setdefault(key, []).append(run)
    return [Setting(result, tuple(runs)) for runs in groups.values()]


def partners(
    ours: Sequence[Setting], theirs: Sequence[Setting]
) -> tuple[list[tuple[Setting, Setting]], list[Setting], list[Setting]]:
    """Settings of two files that are to be compared.

    Those that are alike in everything belong together; of the rest, those of the same levels that differ in
    the fewest parameters.

    Returns:
        The pairs in the order of `ours`; those of each file that have no partner.
    """
    free = list(theirs)
    found: dict[int, Setting] = {}
    for most in (0, None):
        for index, one in enumerate(ours):
            fitting = [other for other in free if _levels(one) == _levels(other)]
            if index in found or not fitting:
                continue
            other = min(fitting, key=lambda other: _distance(one, other))
            if most is None or _distance(one, other)[0] <= most:
                found[index] = other
                free.remove(other)
    pairs = [(ours[index], found[index]) for index in sorted(found)]
    return pairs, [one for index, one in enumerate(ours) if index not in found], free


def _levels(setting: Setting) -> Mapping[str, str]:
    return setting.identity.levels


def _distance(one: Setting, other: Setting) -> tuple[int, bool, bool]:
    """In how many parameters they differ; whether in their place in the session; whether in the target."""
    count = len(differing(one.identity.parameters, other.identity.parameters))
    count += one.driver != other.driver
    return count, one.runs[0].setting != other.runs[0].setting, one.targets != other.targets
