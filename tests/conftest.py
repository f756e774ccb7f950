"""Fixtures for all tests."""

import os

# Small matrices on a busy machine: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["tests.fix_servers", "tests.pool.fix_rig"]
