"""Cells to prompts: templates compiled once, missing values found while rows are rendered."""
