"""A proxy in a thread of its own serves a client that blocks its loop."""

import psycopg
import pytest

from pool_bench.faults import PASS, Conditions, FaultProxy, Mode, ThreadedProxy
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import nothing_left


def test_a_blocking_client_gets_through_and_leaves_nothing(embedded: EmbeddedPostgres) -> None:
    with nothing_left(), ThreadedProxy(FaultProxy(embedded.host, embedded.port)) as proxy:
        with psycopg.connect(proxy.url(user=embedded.user, application_name="threaded")) as connection:
            row = connection.execute("SHOW application_name").fetchone()
        assert row == ("threaded",)
        proxy.call(lambda p: p.set(Conditions(mode=Mode.REFUSE)))
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(proxy.url(user=embedded.user))
        proxy.call(lambda p: p.set(PASS))
        psycopg.connect(proxy.url(user=embedded.user)).close()
        assert proxy.call(lambda p: p.counts.accepted) == 2


def test_what_a_call_raises_comes_out_of_it(embedded: EmbeddedPostgres) -> None:
    with ThreadedProxy(FaultProxy(embedded.host, embedded.port)) as proxy, pytest.raises(ZeroDivisionError):
        proxy.call(lambda p: 1 // len(p.links))
