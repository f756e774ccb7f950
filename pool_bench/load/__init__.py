"""Load: what is to be done, and the process that does it.

`spec.py` says what a run is; `run.py` starts a generator in a process of its own (`process.py`) and adds up
what it sends. `generator.py` drives any `Workload` through its stages; kinds of load are `connect/`, `hold/`
and `pool/`. What they have in common is here: `workload.py` (stages, who records), `dialer.py` (sockets of
the driver `wire`), `drivers.py` (all other drivers), `arrivals.py` and `dispatcher.py` (when operations are
due), `probes.py` (what the generator sees of itself).
"""
