"""Remote Python objects on every device of a LAN."""
