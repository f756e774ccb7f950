"""Figures by address merge exactly, and are bounded."""

from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.results.addresses import AddressRecord
from pool_bench.stats.addresses import MOST_ADDRESSES, OTHERS, AddressRecorder, AddressStats, merge_addresses
from pool_bench.stats.operations import BenchStats, Recorder
from pool_bench.stats.runs import RunResult

_ONE, _TWO = "192.0.2.1:5432", "[2001:db8::2]:5432"


def _recorder() -> AddressRecorder:
    recorder = AddressRecorder()
    for spent_ns in (1_000_000, 3_000_000):
        recorder.ok(_ONE, spent_ns)
    recorder.ok(_TWO, 90_000_000)
    recorder.failed(_TWO, FailureKind.TIMEOUT)
    recorder.passed_over(_TWO, FailureKind.REFUSED)
    recorder.dropped(_ONE, FailureKind.RESET)
    recorder.unfinished(_ONE, 1)
    return recorder


def test_parts_merge_to_what_one_recorder_would_have_taken() -> None:
    whole = _recorder()
    once = whole.take()
    assert whole.take() == {}
    merged: dict[str, AddressStats] = {}
    for part in (_recorder().take(), _recorder().take()):
        merge_addresses(merged, part)
    assert merged.keys() == once.keys() == {_ONE, _TWO}
    one, two = merged[_ONE], merged[_TWO]
    assert (one.ok, one.failed, one.unfinished, one.passed_over, one.dropped) == (4, 0, 2, 0, 2)
    assert (two.ok, two.failed, two.unfinished, two.passed_over, two.dropped) == (2, 2, 0, 2, 0)
    # Buckets are added: the median of all four, not a mean of medians.
    assert one.latency.count == 4
    assert one.latency.percentiles_ms((50, 100)) == once[_ONE].latency.percentiles_ms((50, 100))
    assert AddressRecord.of(RunResult(label="", concurrency=1, driver="", targets=()), "a", two).kinds == {
        "refused": 2,
        "timeout": 2,
    }
    # What was merged in is not changed by it.
    assert once[_ONE].ok == 2


def test_beyond_64_addresses_further_ones_share_a_row_and_no_count_is_lost() -> None:
    recorder = AddressRecorder()
    names = [f"192.0.2.{number}:5432" for number in range(200)]
    for name in names:
        recorder.ok(name, 1_000_000)
        recorder.failed(name, FailureKind.CLOSED)
    merged: dict[str, AddressStats] = {}
    merge_addresses(merged, recorder.take())
    other = AddressRecorder()
    for name in reversed(names):
        other.ok(name, 1_000_000)
    merge_addresses(merged, other.take())
    assert len(merged) <= MOST_ADDRESSES + 1
    assert OTHERS in merged
    assert sum(row.ok for row in merged.values()) == 400
    assert sum(row.latency.count for row in merged.values()) == 400
    assert sum(row.failed for row in merged.values()) == 200


def test_a_recorder_without_a_split_keeps_no_addresses() -> None:
    recorder = Recorder((Phase.TCP,))
    recorder.ok((5, 5), _ONE)
    recorder.failed(ConnectError(FailureKind.CLOSED, Phase.AUTH, "gone"), 7, _ONE)
    recorder.unfinished(1)
    recorder.unfinished_in(Phase.TCP, _ONE)
    assert recorder.addresses is None
    assert recorder.take().addresses == {}


def test_what_addresses_before_took_is_not_charged_to_the_one_that_answered() -> None:
    recorder = Recorder((Phase.EARLIER, Phase.TCP, Phase.AUTH), by_address=True)
    recorder.ok((90_000_000, 80_000_000, 4_000_000, 6_000_000), _ONE)
    recorder.ok((10_000_000, -1, 4_000_000, 6_000_000), _TWO)
    addresses = recorder.take().addresses
    assert addresses[_ONE].latency == addresses[_TWO].latency


def test_in_an_open_loop_an_address_is_charged_for_service_not_for_waiting() -> None:
    recorder = Recorder((Phase.TCP,), responses=True, by_address=True)
    recorder.ok((50_000_000, 10_000_000, 10_000_000), _ONE)
    assert recorder.take().addresses[_ONE].latency.max_ns == 10_000_000


def test_what_is_given_up_is_unfinished_at_its_address_where_that_is_known() -> None:
    recorder = Recorder((Phase.TCP,), by_address=True)
    recorder.unfinished(2)
    recorder.unfinished_in(Phase.AUTH, _ONE)
    recorder.unfinished_in(Phase.CONNECT)
    stats = recorder.take()
    assert {name: row.unfinished for name, row in stats.addresses.items()} == {"": 1, _ONE: 1}
    total = BenchStats.merged([stats, stats])
    assert sum(row.unfinished for row in total.addresses.values()) == total.unfinished == 4
