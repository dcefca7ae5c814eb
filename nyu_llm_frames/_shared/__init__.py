"""Code that all layers share: options, clock, progress, wording."""
