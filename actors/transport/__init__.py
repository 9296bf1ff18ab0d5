"""The way of a message between processes: sessions over links, and the only gRPC code."""

import os

# gRPC reads these when it is imported, which the modules of this package do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # else every `!command` in a notebook prints a warning
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
