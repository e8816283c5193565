"""What commands print. Pure."""
