"""Engines: what the public functions run on. `actors.engine` says what one has to have."""
