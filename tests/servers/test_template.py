"""Clusters kept for the next start: the same server as a new one, and no trust in what may be broken."""

import os
import threading
from pathlib import Path

import psycopg
import pytest

from pool_bench.servers.kept import Keeper
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.servers.template import Template, find_template

pytestmark = pytest.mark.skipif(os.name != "posix", reason="clusters are kept on POSIX systems only")

ORIGIN = {"postgres": "18"}
FILES = {
    "PG_VERSION": b"18\n",
    "base/1/1259": b"pages" + bytes(8187),
    "base/5/1259": b"pages" + bytes(8187),
    "global/pg_control": b"\0control\0",
    "pg_wal/zeros": bytes(70_000),
    "empty": b"",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A directory as initdb leaves it, only smaller."""
    root = tmp_path / "cluster"
    (root / "pg_twophase").mkdir(parents=True)
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def template(tmp_path: Path) -> Template:
    """Where a cluster may be kept."""
    found = find_template(ORIGIN, {"POOL_BENCH_CACHE": str(tmp_path / "cache")})
    assert found is not None
    return found


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_was_kept_is_unpacked_to_the_byte_and_for_its_owner_only(
    cluster: Path, template: Template, tmp_path: Path
) -> None:
    template.keep(cluster)
    assert template.unpack(tmp_path, "data", None)
    assert content_of(tmp_path / "data") == FILES
    assert (tmp_path / "data" / "pg_twophase").is_dir()
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700, 0o600}
    assert template.path.stat().st_mode & 0o777 == 0o600
    assert template.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("harm", ["cut", "changed", "added", "empty", "foreign", "writable", "link", "gone"])
def test_what_is_not_whole_or_not_ours_alone_is_not_taken(
    harm: str, cluster: Path, template: Template, tmp_path: Path
) -> None:
    template.keep(cluster)
    path = template.path
    content = path.read_bytes()
    match harm:
        case "cut":
            path.write_bytes(content[:-1])
        case "changed":
            path.write_bytes(content.replace(b"control", b"contrxl"))
        case "added":
            path.write_bytes(content + b"\0")
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            template = Template(path, {"postgres": "17"})
        case "writable":
            path.chmod(0o620)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "gone":
            path.unlink()
    assert not template.unpack(tmp_path, "data", None)
    assert not (tmp_path / "data").exists()


def test_nothing_is_unpacked_through_a_link(cluster: Path, template: Template, tmp_path: Path) -> None:
    template.keep(cluster)
    (tmp_path / "other").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "other")
    assert not template.unpack(tmp_path, "data", None)
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("extra", ["link", "linked directory", "pipe", "running"])
def test_a_cluster_with_anything_that_initdb_does_not_make_is_not_kept(
    extra: str, cluster: Path, template: Template
) -> None:
    match extra:
        case "link":
            (cluster / "secret").symlink_to("/etc/passwd")
        case "linked directory":
            (cluster / "base" / "16384").symlink_to("/etc")
        case "pipe":
            os.mkfifo(cluster / "pipe")
        case "running":
            (cluster / "postmaster.pid").write_text("1\n")
    template.keep(cluster)
    assert not template.path.exists()


def test_only_the_newest_are_kept_and_nothing_half_written(cluster: Path, tmp_path: Path) -> None:
    place = {"POOL_BENCH_CACHE": str(tmp_path / "cache")}
    made = []
    for number in range(5):
        each = find_template({"postgres": str(number)}, place)
        assert each is not None
        each.keep(cluster)
        os.utime(each.path, (number, number))
        half = each.path.with_name(f".{each.path.name}.{number}")
        half.write_bytes(b"half")
        if number < 4:
            os.utime(half, (0, 0))
        made.append((each.path, half))
    assert sorted((tmp_path / "cache").iterdir()) == sorted([*(path for path, _ in made[2:]), made[4][1]])


def test_nothing_is_kept_where_that_is_turned_off_or_others_may_write(tmp_path: Path) -> None:
    assert find_template(ORIGIN, {"POOL_BENCH_CACHE": "off", "HOME": str(tmp_path)}) is None
    assert find_template(ORIGIN, {}) is None
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert find_template(ORIGIN, {"POOL_BENCH_CACHE": str(shared)}) is None
    assert find_template(ORIGIN, {"HOME": str(shared)}) is None
    at_home = find_template(ORIGIN, {"HOME": str(tmp_path), "XDG_CACHE_HOME": "relative"})
    assert at_home is not None
    assert at_home.path.is_relative_to(tmp_path)
    found = find_template(ORIGIN, {"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path / "xdg")})
    assert found is not None
    assert found.path.parent == tmp_path / "xdg" / "pool-bench"


def test_one_that_cannot_be_written_is_no_error(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Template(tmp_path / "file" / "kept.cluster", ORIGIN).keep(cluster)


def test_servers_that_start_at_once_make_one_template_and_the_next_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_BENCH_CACHE", str(tmp_path / "cache"))
    programs: list[str] = []
    run = Keeper.run

    def noted(self: Keeper, argv: list[str], **options: object) -> str:
        programs.append(Path(argv[0]).name)
        return run(self, argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Keeper, "run", noted)
    config = PostgresConfig(auth="scram-sha-256", password="not to be kept")
    servers = [EmbeddedPostgres(config) for _ in range(2)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        (kept,) = (tmp_path / "cache").iterdir()
        assert b"not to be kept" not in kept.read_bytes()
        assert b"SCRAM-SHA-256$" not in kept.read_bytes()
        programs.clear()
        servers.append(EmbeddedPostgres(config))
        servers[2].start()
        assert "initdb" not in programs
        for server in servers:
            for url in (server.url, server.superuser_url):
                with psycopg.connect(url, password=config.password) as connection:
                    row = connection.execute(
                        "SELECT pg_has_role('pg_monitor', 'USAGE'), current_setting('data_checksums'),"
                        " has_schema_privilege('public', 'CREATE'), (SELECT count(*) FROM pg_database)"
                    ).fetchone()
                    assert row == (True, "on", True, 3)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(server.url, password="another")
    finally:
        for server in servers:
            server.stop()
