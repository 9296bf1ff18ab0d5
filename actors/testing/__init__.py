"""For the tests of programs that use actors: the pytest fixture ``actors_cluster``.

pytest finds it by itself where this package is installed; see `actors.testing.plugin`.
"""

from actors.simulation import Fault as Fault
from actors.simulation import SimulationError as SimulationError
from actors.simulation import simulate as simulate
from actors.testing.plugin import actors_cluster as actors_cluster
