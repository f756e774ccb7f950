"""What a person or another program gets to see: live views, summaries, result files, pictures.

Nothing here measures. Live views take `Snapshot`s, summaries take a `RunResult`, pictures take a
`ResultRecord`, so that the picture of a fresh run and of its file are the same picture. Rich and
matplotlib are imported where they draw, never at the top of what a command line imports.
"""
