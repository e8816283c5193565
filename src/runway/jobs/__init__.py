"""What a job is: its specification, identity, manifest, view and diagnosis. Pure functions and frozen values."""
