"""Test bench: a stand-in of the gateway, the shapes of its rows, and its faults."""
