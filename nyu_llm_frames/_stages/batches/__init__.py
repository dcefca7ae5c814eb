"""Requests to batch jobs: what is sent, in which files, and the life of a job."""
