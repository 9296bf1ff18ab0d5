"""Find nodes on the network."""
