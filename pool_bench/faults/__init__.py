"""Servers and networks that misbehave on purpose, or behave in a way that is known exactly."""

from pool_bench.faults.conditions import PASS, Conditions, Cut, Mode
from pool_bench.faults.link import Link
from pool_bench.faults.proxy import Counts, FaultProxy
from pool_bench.faults.threaded import ThreadedProxy

__all__ = ["PASS", "Conditions", "Counts", "Cut", "FaultProxy", "Link", "Mode", "ThreadedProxy"]
