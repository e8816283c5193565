"""The console at `/`: pages for operators and engineers, rendered by the server, that only read."""
