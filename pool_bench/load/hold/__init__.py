"""Connections opened, held and closed: `wire.py` without coroutines, `tasks.py` with one for each."""
