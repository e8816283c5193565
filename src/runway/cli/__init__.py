"""The command line `runway`, which talks to the server over HTTP only."""
