"""The gateway: where it is, how it is called, and what its failures mean."""
