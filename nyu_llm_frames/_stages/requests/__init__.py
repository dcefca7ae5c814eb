"""Prompts to requests: bodies, parameters, media, and what is refused before an upload."""
