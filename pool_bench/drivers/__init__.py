"""Ways to open a connection, behind the protocol of `base.py`: the project's own (`wire/`, `surreal/`),
and the client libraries that applications use (`asyncpg.py`, `psycopg.py`).

Exceptions of others become `ConnectError` here. Only `network/` is shared by all.
"""
