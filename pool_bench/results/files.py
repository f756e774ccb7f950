"""Files that are whole or not there, and the check before a run that they can be written."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from pool_bench.errors import UsageError, reason_of


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, whatever happens.

    Symbolic links are followed. What is not a regular file (`/dev/stdout`, a pipe) is written to,
    never replaced. Missing parent directories are made.

    Raises:
        UsageError: it cannot be written; the message names the path.
    """
    real = Path(os.path.realpath(path))
    try:
        if _is_special(real):
            with real.open("wb", buffering=0) as stream:
                stream.write(data)
            return
        real.parent.mkdir(parents=True, exist_ok=True)
        _replace(real, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason_of(error)}") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    # Opened with the mode it is to have: the kernel takes the umask off, without a race. Results tell of
    # hosts and users, so nobody else reads them; one that was kept from the group stays so.
    mode = 0o640
    with contextlib.suppress(FileNotFoundError):
        mode &= stat.S_IMODE(path.stat().st_mode) | 0o600
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def check_writable(path: Path, *, option: str = "", directory: bool = False) -> None:
    """Make sure, before a run, that its results can be written; nothing is left behind.

    Args:
        path: a file to be, or a directory to be that files go into.
        option: the option that named it, such as `--json`, for the message.
        directory: `path` is a directory, which is made later if it is missing.

    Raises:
        UsageError: it cannot be written; one line that names the option and the path.
    """
    prefix = f"{option}: " if option else ""
    try:
        real = Path(os.path.realpath(path))
        if directory:
            _probe(_nearest(real))
        elif real.is_dir():
            raise UsageError(f"{prefix}cannot write {path}: it is a directory")
        elif real.exists() and not os.access(real, os.W_OK):
            raise UsageError(f"{prefix}cannot write {path}: permission denied")
        elif not _is_special(real):
            _probe(_nearest(real.parent))
    except OSError as error:
        raise UsageError(f"{prefix}cannot write {path}: {reason_of(error)}") from error


def _nearest(directory: Path) -> Path:
    """The closest directory that is already there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if not directory.is_dir():
        raise NotADirectoryError(20, f"{directory} is not a directory")
    return directory


def _probe(directory: Path) -> None:
    """Make and remove a file: permissions, read-only and full file systems all show."""
    probe = directory / f".pool-bench-{secrets.token_hex(6)}.tmp"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    probe.unlink()


def _is_special(path: Path) -> bool:
    """Whether `path` exists and is neither a regular file nor a directory."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
