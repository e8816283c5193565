"""Long-running loops: sync, diagnostics, leadership, recording."""
