"""A psycopg connection whose waits end. Imports psycopg: import it where it is used.

psycopg lets a generator say what it waits for, and wakes it at an interval while nothing happens; between
the two there is room to ask whether the answer is still wanted.
"""

from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting

_Result = TypeVar("_Result")

_INTERVAL_S: Final = 0.1


class TimeUpError(Exception):
    """The answer did not come while it was wanted."""


class BoundedConnection(psycopg.Connection[tuple[object, ...]]):
    """A connection that gives up waiting within a tenth of a second of `still_wanted` saying no.

    Attributes:
        still_wanted: asked while an answer is awaited.
    """

    still_wanted: Callable[[], bool] = staticmethod(lambda: True)

    def wait(
        self,
        gen: Generator[Any, Any, _Result],
        interval: float = _INTERVAL_S,
        timeout: float | None = None,
    ) -> _Result:
        """Run a libpq exchange to its end.

        Raises:
            TimeUpError: it was given up, and the connection is closed.
        """
        try:
            # The time limit of newer versions is not used: it does not close the connection.
            return waiting.wait(self._while_wanted(gen), self.pgconn.socket, interval=_INTERVAL_S)
        except TimeUpError:
            self.pgconn.finish()
            raise

    def _while_wanted(self, gen: Generator[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
        ready = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                result: _Result = end.value
                return result
            if not self.still_wanted():
                raise TimeUpError
            ready = yield wanted
