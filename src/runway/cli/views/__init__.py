"""Views of the command line: text for people. Pure."""
