"""For the tests of programs that use actors: the pytest fixture ``actors_cluster``.

pytest finds it by itself where this package is installed; see `actors.testing.plugin`.
"""

from actors.testing.plugin import actors_cluster as actors_cluster
