"""A node: what one device gives to the cluster. Started as ``python -m actors.node``."""
