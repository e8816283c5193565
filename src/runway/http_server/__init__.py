"""Bounded HTTP/1.1 protocol for uvicorn."""
