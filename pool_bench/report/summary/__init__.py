"""What a run, a search, pools or a comparison came to, in plain text of at most 100 columns."""
