"""Jobs: specification, manifest, view and diagnosis. Pure functions."""
