"""What can go wrong while nodes are looked for."""


class DiscoveryError(Exception):
    """The network cannot be used for discovery, or a browser is used outside its ``with`` block.

    The message says what was wrong and what to do next. Wrong arguments are a ``ValueError`` instead.
    """
