"""Measurements, each with a baseline from the same run on the same machine."""
