"""Cells to prompts: templates compiled once, names and NA decided before rendering."""
