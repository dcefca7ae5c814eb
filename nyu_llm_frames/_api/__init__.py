"""What users call: the accessor, files, `Run`, trials, exchange, and how a run is shown."""
