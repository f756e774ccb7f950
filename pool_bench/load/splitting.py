"""Which targets are counted by address too, and which address an operation belongs to.

A target has several addresses where its URL names several hosts, or its host is a name. Where it is one
address there is nothing to split, and nothing is done for it unless that is asked for.
"""

from pool_bench.drivers.base import Connection
from pool_bench.drivers.wire.dial import Dial
from pool_bench.errors import ConnectError
from pool_bench.load.spec import ConnectSpec, HoldSpec
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder


def splits_of(spec: ConnectSpec | HoldSpec) -> tuple[bool, ...]:
    """For each target of `spec`, whether it is counted by address."""
    if spec.driver == "surrealdb":
        # The official client does not tell.
        return (False,) * len(spec.targets)
    return tuple(spec.by_address or not target.has_one_address for target in spec.targets)


def address_of(recorder: Recorder, dial: Dial) -> str:
    """The address at which a dial ended; those that it passed over are recorded."""
    addresses = recorder.addresses
    if addresses is None:
        return UNKNOWN
    for passed in dial.passed or ():
        addresses.passed_over(passed.endpoint.label, passed.error.kind)
    here = dial.endpoint
    return UNKNOWN if here is None else here.label


def address_of_connection(recorder: Recorder, connection: Connection) -> str:
    """The address of an open connection, where its driver tells; those passed over before are recorded."""
    if recorder.addresses is None:
        return UNKNOWN
    for where, kind in connection.passed_over:
        recorder.addresses.passed_over(where, kind)
    return connection.address


def address_of_error(recorder: Recorder, error: ConnectError) -> str:
    """The address at which a connect failed, where its driver tells; those passed over are recorded."""
    if recorder.addresses is not None:
        for where, kind in error.passed_over:
            recorder.addresses.passed_over(where, kind)
    return error.address
