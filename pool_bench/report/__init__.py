"""What a person or another program gets to see: live views, summaries, last screens, pictures.

Nothing here measures or compares. Live views take `Snapshot`s; everything else takes the records of the
result file, so that what is said of a fresh run and of its file is the same. Rich and matplotlib are
imported where they draw, never at the top of what a command line imports.
"""
