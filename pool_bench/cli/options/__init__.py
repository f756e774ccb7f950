"""Options that commands share, with the same names, defaults and words everywhere."""
