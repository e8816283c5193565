"""What Kubernetes reported, in memory."""
