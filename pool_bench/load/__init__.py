"""Load: what is to be done, and the process that does it.

`spec.py` says what a run is, `run.py` starts a generator in a process of its own and adds up what it
sends. Kinds of load are `connect/`, `hold/` and `pool/`; what they have in common is here: `workload.py`
(who records), `arrivals.py` and `dispatcher.py` (when operations are due), `probes.py` (what the
generator sees of itself).
"""
