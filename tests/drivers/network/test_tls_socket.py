"""What is left of a TLS socket whose peer goes while it is being made."""

import socket
import ssl
import struct

import pytest

from pool_bench.drivers.network import tls


class _Vanishing(socket.socket):
    """Connected when asked, reset right after: the race that a server's RST wins now and then."""

    peer: socket.socket

    def getpeername(self) -> object:
        """Answer, then let the peer reset the connection."""
        name: object = super().getpeername()
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        return name


def test_a_reset_while_a_tls_socket_is_made_leaves_no_socket() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with socket.create_server(("127.0.0.1", 0)) as server, _Vanishing() as client:
        client.connect(server.getsockname())
        client.peer = server.accept()[0]
        client.setblocking(False)
        # A socket left to the garbage collector would be a ResourceWarning, and so a failure.
        with pytest.raises(ConnectionResetError):
            tls.wrap(context, client, None)
