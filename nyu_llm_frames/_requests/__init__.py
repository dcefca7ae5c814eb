"""Prompts to requests, and which of them to send."""
