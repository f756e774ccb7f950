"""Pictures of results, one module for each kind, without a display."""
