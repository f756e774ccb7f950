"""What makes a run suspect, by name: the vocabulary of verdicts."""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a run is suspect. The values are those of `verdict.reasons` in the result file."""

    CLIENT_SATURATED = "client_saturated"
    CLIENT_STARVED = "client_starved"
    CLIENT_BLOCKED = "client_blocked"
    CLIENT_SUSPENDED = "client_suspended"
    CLIENT_FDS = "client_fds"
    CLIENT_PORTS = "client_ports"
    PORT_SEARCH = "port_search"
    SCHEDULE_SLIPPED = "schedule_slipped"
    RATE_NOT_ACHIEVED = "rate_not_achieved"
    FULL_ACCEPT_QUEUE = "full_accept_queue"
    WARMUP_NOT_OVER = "warmup_not_over"
    FEW_SAMPLES = "few_samples"
    NO_SUCCESS = "no_success"
    GENERATOR_LOST = "generator_lost"
    WORKER_LOST = "worker_lost"
    SNAPSHOTS_MISSING = "snapshots_missing"
    STARTED_LATE = "started_late"
    CLOCK_SKEW = "clock_skew"


class NoteCode(StrEnum):
    """What figures that may well be right do not show. The values are those of `verdict.notes`."""

    HIDDEN_PAUSE = "hidden_pause"
    CLOSED_BY_US = "closed_by_us"
    CLIENT_STARVED = "client_starved"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing a reader must know.

    Attributes:
        code: names it for programs.
        text: what was seen and what it means, sentences.
        remedy: what helps, without a full stop.
    """

    code: str
    text: str
    remedy: str
