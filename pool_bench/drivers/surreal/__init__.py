"""SurrealDB connections: `driver.py` times every step, `client.py` is the official client.

A channel (`websocket_channel.py`, `http_channel.py`) carries the messages of `rpc.py`. For the pool the
official client is carried by `client_transport.py`.
"""
