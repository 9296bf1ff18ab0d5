"""The engine of a Ray cluster: the same actors, groups, collectives, tasks and references as actors of Ray's own."""

from actors.engines.ray.connection import connect as connect
