"""Watching a server while connections to it are held: its slots, backends, pools and memory."""
