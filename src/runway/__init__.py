"""Runway: the safe front door to one shared Kubernetes cluster."""
