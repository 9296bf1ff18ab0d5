"""The whole idea in one minute: nodes, actors, an all-reduce, and one model over three processes."""
