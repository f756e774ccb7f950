"""Faults of a network, made on purpose: a TCP proxy to put between a client and a server."""

from pool_bench.faults.conditions import PASS, Conditions, Cut, Mode
from pool_bench.faults.link import Link
from pool_bench.faults.proxy import Counts, FaultProxy
from pool_bench.faults.threaded import ThreadedProxy

__all__ = ["PASS", "Conditions", "Counts", "Cut", "FaultProxy", "Link", "Mode", "ThreadedProxy"]
