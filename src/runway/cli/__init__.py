"""The command line `runway`: one noun a file. It talks to Runway over HTTP and shares no state with it."""
