"""What a command found out, and the result file that is made of it (schema `pool-bench/1`).

`session.py` is all that one command did, as it happened. A `ResultRecord` (`model.py`, with a module for each
part) is the file: its names are an interface. It comes from a session by plain conversion, from a file by
`read.py`, strictly, and goes to one by `write.py`; whoever shows or compares results takes nothing else.
`thresholds.py` judges any field of a run.
"""
