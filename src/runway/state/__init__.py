"""State that Kubernetes reported, in memory. No I/O."""
