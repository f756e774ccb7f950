"""PostgreSQL connections over the protocol of `pgwire`, every step timed: `dial.py` is one connect as a
machine that somebody else drives, `driver.py` drives it from coroutines.
"""
