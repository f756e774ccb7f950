"""Watching a server during a run: its slots, sessions, pools, set-up times, CPU and memory."""
