"""The folder that remembers: files, lock, records."""
