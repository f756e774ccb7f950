"""What is counted: plain data that merges exactly, in the generator, in the parent and over rounds.

`histogram.py` has durations in HDR buckets, `operations.py` connect cycles, `holds.py` held connections,
`checkouts.py` callers of a pool, `server.py` what the server showed; `runs.py` is what generators send
and a finished run. `timeline.py` keeps long runs small.
"""
