"""What is shown while a run is under way: a view on a terminal, a line a second elsewhere."""
