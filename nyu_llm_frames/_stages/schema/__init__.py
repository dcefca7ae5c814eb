"""Structured output: a schema in, typed columns out."""
