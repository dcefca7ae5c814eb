"""The stages of the picture: values in, values out; no clock, socket, path or environment."""
