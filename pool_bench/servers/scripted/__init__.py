"""Servers of known behaviour, which record what they did: the measure of the measuring.

`server.py` starts one in a process of its own, `loop.py` is that process, `postgres.py` and `surreal.py`
what it speaks, `behaviour.py` what it is told to do and says that it did.
"""
