"""Sockets, TLS, local addresses and ports, for every driver that makes its own connections."""
