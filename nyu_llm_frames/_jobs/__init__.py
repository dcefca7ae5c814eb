"""Batch jobs: their life, the runner that acts, the reading of outputs."""
