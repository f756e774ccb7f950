"""What figures mean: rules without any I/O, from values to values.

`verdict.py` says whether a run can be trusted (`reasons.py` has the vocabulary), `server_limit.py` what
kept it from being faster, `walls_ahead.py` and `stalled_growth.py` what keeps connections from growing.
`objectives.py` and `rate_search.py` find the highest rate that meets an objective, `scalability.py` the
size of a pool.
"""
