"""A primary and a standby that streams from it, of the distribution's PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pool_bench.servers.kept import Keeper
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, distribution_bin_dir
from tests.support.servers import missing_server

_HBA: Final = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 trust\n"


class _Standby(EmbeddedPostgres):
    """A hot standby that streams from `primary`."""

    def __init__(self, primary: EmbeddedPostgres) -> None:
        super().__init__(primary.config)
        self._primary = primary

    def _create_cluster(self, keeper: Keeper) -> None:
        assert self._primary.socket_dir is not None
        assert self._primary.config.bin_dir is not None
        keeper.run(
            [
                str(self._primary.config.bin_dir / "pg_basebackup"),
                f"--pgdata={self.data_directory}",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                f"--host={self._primary.socket_dir}",
                f"--port={self._primary.port}",
                f"--username={self.superuser}",
            ],
            timeout_s=60,
        )


@contextmanager
def replicated_pair() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """The primary and its standby."""
    bin_dir = distribution_bin_dir()
    if bin_dir is None:
        missing_server("PostgreSQL with pg_basebackup", "postgresql")
    settings = {"wal_level": "replica", "max_wal_senders": "4"}
    config = PostgresConfig(bin_dir=bin_dir, settings=settings, files={"pg_hba.conf": _HBA})
    with EmbeddedPostgres(config) as primary, _Standby(primary) as standby:
        yield primary, standby


def replicated_url(*servers: EmbeddedPostgres, options: str) -> str:
    """The superuser's URL of all `servers`, in this order, with these parameters."""
    places = ",".join(f"{server.host}:{server.port}" for server in servers)
    return f"postgresql://postgres@{places}/postgres?sslmode=disable&{options}"
