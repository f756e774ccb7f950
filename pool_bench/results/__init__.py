"""What a command found out, and the result file that is made of it (schema `pool-bench/1`).

`session.py` is all that one command did; each part of the file is written and read here, strictly, with
errors that name file and field. Its names are an interface. `thresholds.py` judges any field of a run.
"""
