"""HTTP/1.1 protocol for uvicorn with bounds on clients."""
