"""The one error of this package."""


class LocalClusterError(Exception):
    """The local cluster cannot do what was asked; the message says why and what to do next."""
