"""The folder that remembers: files, lock, records, and a reader."""
