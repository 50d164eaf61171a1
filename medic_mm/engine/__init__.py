"""What acts around training: hooks and optimizer groups."""
