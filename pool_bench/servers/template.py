"""A database cluster as `initdb` made it, kept for the next start: unpacking it takes a tenth of making it.

One file each in the user's cache directory, with all that the cluster consists of. It is written beside its
place and renamed, so that any number of processes may make and read it at once; a checksum tells one that is
not whole, which is made anew. It holds no password and nothing that a run has left.

Clusters from one template share what `initdb` would have drawn for each: the system identifier, and the
secret that hides which users exist. No server of one run is a standby of another's.

As root a cluster belongs to another account, which may do anything to it meanwhile: links are not followed,
neither to read nor to write, and nothing is opened by a path through a directory that is not ours alone.
"""

import contextlib
import json
import os
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pool_bench.servers.host import Account

# The directory that clusters are kept in, or `off`.
VARIABLE: Final = "POOL_BENCH_CACHE"
_OFF: Final = "off"

_MAGIC: Final = b"pool-bench cluster 1\n"
_NUMBERS_BYTES: Final = 16
_SUFFIX: Final = ".cluster"
# One a version of PostgreSQL, of this tool and of the time zone.
_MOST_KEPT: Final = 3
# What a process that was killed has left half written.
_STALE_S: Final = 3600.0
# A cluster with anything more was not just made.
_MOST_BYTES: Final = 1 << 28
# Names that belong to a running server.
_RUNNING: Final = frozenset({"postmaster.pid", "postmaster.opts"})


class _NotPlainError(Exception):
    """There is something in a cluster that is not to be kept."""


class _Stored(NamedTuple):
    """A file of a cluster: `stored` bytes at `offset` of the contents, and zeros up to its `size`."""

    name: str
    size: int
    offset: int
    stored: int


@dataclass(frozen=True, slots=True)
class Template:
    """Where a cluster is kept.

    Attributes:
        path: its file, which need not be there.
        origin: what the cluster was made with and from; one with another origin is not taken.
    """

    path: Path
    origin: Mapping[str, str]

    def unpack(self, parent: Path, name: str, account: Account | None) -> bool:
        """Make the cluster below a server's directory.

        Args:
            parent: the server's directory.
            name: of the cluster's own directory, which is not there yet.
            account: whose it is to be; None is ours.

        Returns:
            Whether it is there. Otherwise nothing is: no cluster is kept, or it is of no use.
        """
        try:
            content = self._read()
            directories, files, base = self._parse(content)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        made: dict[str, int] = {}
        try:
            with _opened(parent) as place:
                os.mkdir(name, 0o700, dir_fd=place)
                made[""] = _open_directory(name, place)
            for path in directories:
                above, _, last = path.rpartition("/")
                os.mkdir(last, 0o700, dir_fd=made[above])
                made[path] = _open_directory(last, made[above])
            view = memoryview(content)
            for file in files:
                above, _, last = file.name.rpartition("/")
                start = base + file.offset
                _make_file(last, made[above], view[start : start + file.stored], file.size, account)
            if account is not None:
                # Last: until then they are ours alone.
                for handle in made.values():
                    os.fchown(handle, account.uid, account.gid)
        except (OSError, KeyError):
            shutil.rmtree(parent / name, ignore_errors=True)
            return False
        finally:
            for handle in made.values():
                os.close(handle)
        return True

    def keep(self, cluster: Path) -> None:
        """Keep a cluster that was just made and that no server has; nothing where that cannot be done."""
        with contextlib.suppress(OSError, _NotPlainError):
            data = self._pack(cluster)
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name}.{os.urandom(6).hex()}")
            try:
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                temporary.replace(self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._remove_others()

    def _read(self) -> bytes:
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or not _is_private(status) or status.st_size > _MOST_BYTES:
                raise ValueError
            return file.read()

    def _parse(self, content: bytes) -> tuple[list[str], list[_Stored], int]:
        start = len(_MAGIC) + _NUMBERS_BYTES
        if not content.startswith(_MAGIC):
            raise ValueError
        checksum = int.from_bytes(content[len(_MAGIC) : len(_MAGIC) + 8])
        length = int.from_bytes(content[len(_MAGIC) + 8 : start])
        view = memoryview(content)
        if zlib.crc32(view[start:]) != checksum:
            raise ValueError
        head: dict[str, Any] = json.loads(bytes(view[start : start + length]))
        if head["origin"] != self.origin:
            raise ValueError
        return head["directories"], [_Stored(*entry) for entry in head["files"]], start + length

    def _pack(self, cluster: Path) -> bytearray:
        directories: list[str] = []
        files: list[_Stored] = []
        offsets: dict[bytes, int] = {}
        contents = bytearray()
        for above, names, inner, handle in os.fwalk(cluster, follow_symlinks=False):
            prefix = "" if above == str(cluster) else f"{Path(above).relative_to(cluster).as_posix()}/"
            for name in names:
                if not stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                    raise _NotPlainError
                directories.append(prefix + name)
            for name in inner:
                data = _read_plain(name, handle)
                kept = data.rstrip(b"\0")
                # The databases are copies of each other, so most files are there three times.
                offset = offsets.setdefault(kept, len(contents))
                if offset == len(contents):
                    contents += kept
                files.append(_Stored(prefix + name, len(data), offset, len(kept)))
                if len(contents) > _MOST_BYTES:
                    raise _NotPlainError
        head = json.dumps({"origin": dict(self.origin), "directories": directories, "files": files}).encode()
        body = head + contents
        numbers = zlib.crc32(body).to_bytes(8) + len(head).to_bytes(8)
        return bytearray(_MAGIC + numbers + body)

    def _remove_others(self) -> None:
        """Remove all but the newest, and what was left half written."""
        found = [(path.lstat().st_mtime, path) for path in self.path.parent.glob(f"*{_SUFFIX}")]
        for _, path in sorted(found, reverse=True)[_MOST_KEPT:]:
            path.unlink(missing_ok=True)
        for path in self.path.parent.glob(f".*{_SUFFIX}.*"):
            if time.time() - path.lstat().st_mtime > _STALE_S:
                path.unlink(missing_ok=True)


def find_template(origin: Mapping[str, str], environment: Mapping[str, str]) -> Template | None:
    """Where a cluster of that origin is kept, or to be kept.

    Args:
        origin: see `Template`.
        environment: says where the cache is: POOL_BENCH_CACHE, XDG_CACHE_HOME, HOME.

    Returns:
        None where nothing is to be kept: it was turned off, or there is no place that is ours alone.
    """
    directory = _cache_directory(environment)
    if directory is None or not _is_ours(directory):
        return None
    number = zlib.crc32(json.dumps(dict(origin), sort_keys=True).encode())
    return Template(directory / f"postgresql-{number:08x}{_SUFFIX}", dict(origin))


def _cache_directory(environment: Mapping[str, str]) -> Path | None:
    chosen = environment.get(VARIABLE, "")
    if os.name != "posix" or chosen.lower() == _OFF:
        return None
    if chosen:
        return Path(chosen).absolute()
    usual = environment.get("XDG_CACHE_HOME", "")
    # https://specifications.freedesktop.org/basedir-spec/latest/: a relative one is to be ignored.
    if usual.startswith("/"):
        return Path(usual) / "pool-bench"
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        return None
    return Path(home) / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "pool-bench"


def _is_ours(directory: Path) -> bool:
    """Whether a directory, or the nearest above it that is there, is ours and writable for nobody else."""
    for place in (directory, *directory.parents):
        try:
            status = place.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and _is_private(status)
    return False


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _open_directory(name: str, place: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)


def _make_file(name: str, place: int, data: memoryview, size: int, account: Account | None) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
    try:
        if account is not None:
            os.fchown(handle, account.uid, account.gid)
        _write_all(handle, data)
        # Written and not left out: a server must not find its disk full where it had its zeros before.
        _write_all(handle, memoryview(bytes(size - len(data))))
    finally:
        os.close(handle)


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _read_plain(name: str, place: int) -> bytes:
    if name in _RUNNING:
        raise _NotPlainError
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise _NotPlainError
        return file.read()
