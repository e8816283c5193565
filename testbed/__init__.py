"""What tests, demo, deploy and bench share to drive a Runway and a cluster."""
