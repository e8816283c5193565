"""The stories Runway tells, each readable top to bottom: submit, observe, cancel."""
