"""What can go wrong in the protocol itself."""


class ProtocolError(Exception):
    """Base of the protocol's errors."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol does not allow now: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The server sent what the protocol does not allow now, or bytes that are no message."""


class AuthenticationError(Exception):
    """Authentication cannot go on: no password, an unknown method, or a server without proof."""
