"""The run's folder, its sidecar: files, lock, records."""
