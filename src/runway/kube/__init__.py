"""Speak to the Kubernetes API server."""
