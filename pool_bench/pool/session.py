"""The SQL that a config wants on each connection."""

from pathlib import Path

from pool_bench.pool.config import PoolConfig


def read_session(config: PoolConfig) -> tuple[tuple[str, ...], str | None]:
    """The session's SQL in the order in which it is run, and the schema's.

    Raises:
        ValueError: a file cannot be read; the message names the field.
    """
    session: list[str] = []
    if config.session_file is not None:
        session.append(_read("session_file", config.session_file))
    if config.session_sql is not None:
        session.append(config.session_sql)
    schema = _read("schema_file", config.schema_file) if config.schema_file is not None else None
    return tuple(sql for sql in session if sql.strip()), schema


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{name}: {path} cannot be read: {reason}") from error
