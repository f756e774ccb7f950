"""Servers of known behaviour that speak PostgreSQL's protocol or SurrealDB's, to measure the measuring with.

One runs in a process of its own (`loop.py`), does to every connection what its `Behaviour` says, and
records what it really did: its `Truth` is what a benchmark's figures must agree with. Without any delay it is
the null server, whose figures are those of the client and the kernel. It trusts everybody, speaks TLS where
it is told to, and gives the same result to every query.
"""

import multiprocessing as mp
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, Literal, Self

from pool_bench.errors import ServerStartError
from pool_bench.processes import start_ignoring_interrupts
from pool_bench.servers.scripted.behaviour import Behaviour, Truth
from pool_bench.targets.surreal import SurrealTarget, surreal_target

_START_S: Final = 30.0
_ANSWER_S: Final = 10.0
_END_S: Final = 5.0


class _Scripted(ABC):
    """A server of known behaviour for as long as its `with` block lasts, or else its parent.

    Args:
        behaviour: what it does.
        host: where it listens, on a free port.

    Raises:
        ServerStartError: on entry, it does not start.

    Attributes:
        port: its TCP port; `pid` its process. Both are set on entry.
    """

    def __init__(self, behaviour: Behaviour | None = None, *, host: str = "127.0.0.1") -> None:
        self.behaviour: Final = behaviour or Behaviour()
        self.host: Final = host
        self.port = 0
        self.pid = 0

    def __enter__(self) -> Self:
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        self._control: Connection[str, int | Truth] = ours
        # A daemon, so that an exit of ours that skips the `with` block does not wait for it.
        self._process = context.Process(
            target=self._program(),
            args=(self.behaviour, theirs, self.host),
            name="scripted server",
            daemon=True,
        )
        start_ignoring_interrupts(self._process)
        theirs.close()
        try:
            port = self._receive(_START_S)
        except BaseException:
            self.__exit__()
            raise
        assert isinstance(port, int)  # noqa: S101  # what it says first
        self.port, self.pid = port, self._process.pid or 0
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._control.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    @abstractmethod
    def _program(self) -> "Callable[[Behaviour, Connection[int | Truth, str], str], None]":
        """What its process does; imported only now, for it needs numpy."""

    def truth(self) -> Truth:
        """What it has done since it started; waits up to two seconds for open connections to end.

        Raises:
            ServerStartError: it is no longer there.
        """
        try:
            self._control.send("truth")
        except OSError as error:
            raise ServerStartError("the server of known behaviour has ended") from error
        truth = self._receive(_ANSWER_S)
        assert isinstance(truth, Truth)  # noqa: S101  # what was asked for
        return truth

    def _receive(self, wait_s: float) -> int | Truth:
        try:
            if self._control.poll(wait_s):
                return self._control.recv()
        except (EOFError, OSError) as error:
            raise ServerStartError("the server of known behaviour has ended") from error
        raise ServerStartError("the server of known behaviour does not answer")


class ScriptedPostgres(_Scripted):
    """One that speaks PostgreSQL's protocol.

    Args:
        tls: whether it has TLS, for those that ask for it; where `can_make_certificates` says that it can.

    Attributes:
        certificate: a file with its certificate, the authority of which is itself; "" without TLS.
    """

    def __init__(
        self, behaviour: Behaviour | None = None, *, host: str = "127.0.0.1", tls: bool = False
    ) -> None:
        super().__init__(behaviour, host=host)
        self._has_tls = tls
        self.certificate = ""

    def url(self, options: str = "sslmode=disable") -> str:
        """A URL to it."""
        return f"postgresql://known@{self.host}:{self.port}/known?{options}"

    def __enter__(self) -> Self:
        super().__enter__()
        if self._has_tls:
            try:
                self.certificate = f"/proc/{self.pid}/fd/{self._receive(_START_S)}"
            except BaseException:
                self.__exit__()
                raise
        return self

    def _program(self) -> "Callable[[Behaviour, Connection[int | Truth, str], str], None]":
        from pool_bench.servers.scripted.postgres import serve_postgres, serve_postgres_tls

        return serve_postgres_tls if self._has_tls else serve_postgres


class ScriptedSurreal(_Scripted):
    """One that speaks SurrealDB's, over WebSockets and HTTP, and believes every password.

    Of its `Behaviour`, `auth` is the sign-in's, `ready` the selection's, `query` that of every other request.
    """

    def target(self, scheme: Literal["ws", "http"] = "ws", *, anonymous: bool = False) -> SurrealTarget:
        """It as a target, with a user to sign in as unless `anonymous`."""
        return surreal_target(
            f"{scheme}://{self.host}:{self.port}",
            user=None if anonymous else "known",
            password=None if anonymous else "known",
            namespace="known",
            database="known",
            environ={},
        )

    def _program(self) -> "Callable[[Behaviour, Connection[int | Truth, str], str], None]":
        from pool_bench.servers.scripted.surreal import serve_surreal

        return serve_surreal
