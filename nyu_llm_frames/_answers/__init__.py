"""Output lines to answers."""
