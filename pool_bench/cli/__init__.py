"""The commands from options to exit code.

`options/` reads what the user wants, `places/` finds or starts the server that is meant, `commands/` has
a module for each command. `plan.py` is the frame around the runs of all that measure, `session.py` keeps
their results, `entry.py` is how any command is entered and left. Everything printed goes through
`outlets.py`.
"""
