"""The way of a message between processes: sessions over links, and the only gRPC code."""
