"""The gateway: its address, its calls, and the meaning of its failures."""
