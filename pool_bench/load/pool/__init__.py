"""Pools under load: clients that ask for a connection, use it and give it back; `fairness.py` notes who
was served before whom.
"""
