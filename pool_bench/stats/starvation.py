"""Who had the cores that a client waited for: words from figures."""

from typing import Final

from pool_bench.stats.operations import ClientUsage

# Who took so much of the time for which the client waited is named for it.
_SHARE: Final = 0.2
_LEAST_OTHERS: Final = 0.1


def starver_words(client: ClientUsage, server: float | None, *, embedded: bool, siblings: float = 0.0) -> str:
    """Who had the cores: a quota, the hypervisor, the server, others; "" where that is not known.

    Args:
        client: what the generator cost, and where its time went.
        server: cores that a server on this machine used, None where that was not seen.
        embedded: the target is the embedded server, which is on this machine.
        siblings: cores that the other generators of the run used.
    """
    time = client.time
    if not time.seen_s:
        return ""
    cores = f"{time.cores:.3g} core{'' if time.cores == 1 else 's'}"
    parts = []
    if time.throttled_s and time.throttled_s >= _SHARE * time.late_waiting_s:
        parts.append(f"the CPU quota of {cores} was used up")
    if time.stolen_s and time.stolen_s >= _SHARE * (time.late_waiting_s + time.late_standing_s):
        parts.append(f"the hypervisor took {time.stolen_s / time.seen_s:.0%} of a core")
    if parts:
        return " and ".join(parts)
    others = max(time.busy_s / time.seen_s - client.cpu_share - siblings, 0.0)
    ours = f", the other generators {siblings:.1f}" if siblings >= _LEAST_OTHERS else ""
    if server is None:
        who = "the embedded server and others" if embedded else "others"
        return f"{who} used {others:.1f} of {cores}{ours}"
    others = max(others - server, 0.0)
    also = ours + (f", others {others:.1f}" if others >= _LEAST_OTHERS else "")
    return f"the {'embedded ' if embedded else ''}server used {server:.1f} of {cores}{also}"
