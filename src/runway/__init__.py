"""Runway: the safe front door to one shared Kubernetes cluster."""

__version__ = "0.7.0"
