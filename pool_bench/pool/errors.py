"""What can go wrong at a pool, for its callers to tell apart.

A failed connect is no error of its own here: the pool tries again, and the last failure is the
`__cause__` of whatever a caller gets to see.
"""


class PoolError(Exception):
    """Base of every exception that a pool raises on purpose; by itself, a misuse of the pool."""


class PoolTimeoutError(PoolError, TimeoutError):
    """No connection came within the caller's limit.

    Attributes:
        size: connections the pool had, those being opened included.
        in_use: connections that were leased.
        waiters: callers that were still waiting.
    """

    def __init__(self, message: str, *, size: int, in_use: int, waiters: int) -> None:
        super().__init__(message)
        self.size = size
        self.in_use = in_use
        self.waiters = waiters


class PoolExhaustedError(PoolError):
    """As many callers wait as `max_waiters` allows."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool is not open, or is being closed."""


class PoolUnavailableError(PoolError, ConnectionError):
    """The target is down: several connects in a row failed and no connection is left."""


class CircuitOpenError(PoolError, ConnectionError):
    """The circuit breaker is open: no connect is tried, and no connection is left."""


def describe(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
