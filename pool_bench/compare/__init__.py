"""Whether one result is better than another, worse, or whether the difference is noise.

Settings are matched and refused (`settings.py`, `comparison.py`), rounds become samples (`rounds.py`,
`samples.py`), `bootstrap.py` says how sure a figure is and `change.py` what that comes to. `pools.py` and
`pool_sizes.py` put the rounds of pools together. Calculation only; words are in the package `report`.
"""
