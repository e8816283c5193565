"""Long-running loops: sync, leadership, recording."""
