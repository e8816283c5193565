"""The read-only console at `/`, rendered by the server."""
