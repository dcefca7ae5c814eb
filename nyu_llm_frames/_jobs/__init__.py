"""Batch jobs as effects: planned, sent, polled, read, driven."""
