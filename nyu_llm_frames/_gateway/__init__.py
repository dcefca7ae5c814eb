"""The gateway: where it is, what it says, how it is called."""
