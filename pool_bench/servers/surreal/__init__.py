"""The embedded SurrealDB: `server.py` keeps a process, `gateway.py` is its program, `engine.py` the
engine in it.
"""
