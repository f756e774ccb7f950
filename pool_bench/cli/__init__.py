"""The commands from options to exit code.

`options/` reads what the user wants, `places/` finds or starts the server that is meant, `commands/` has
a module for each command, and `session.py` is what all of them do around their runs. `entry.py` is how a
command is entered and left. Everything printed goes through `outlets.py`.
"""
