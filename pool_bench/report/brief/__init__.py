"""The last screen of every command: the answer, in at most 24 lines of 80 columns."""
