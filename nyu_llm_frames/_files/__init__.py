"""Tables by path: read in pieces, answered, and written again, in memory that does not grow."""
