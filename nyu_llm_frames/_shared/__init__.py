"""What all share: options, clock, progress, wording."""
