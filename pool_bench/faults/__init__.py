"""Servers and networks that misbehave on purpose, or behave in a way that is known exactly."""
