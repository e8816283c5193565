"""The one error of this package."""


class LocalClusterError(Exception):
    """A command of the local cluster failed; the message has the reason and the next step."""
