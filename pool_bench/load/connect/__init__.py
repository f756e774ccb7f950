"""Connections opened and closed, in a closed or an open loop: `dials.py` and `open_dials.py` without
coroutines for the driver `wire`, `tasks.py` and `open_tasks.py` for drivers that are made of them.
"""
