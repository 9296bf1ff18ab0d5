"""Simulation: actors, callers and a faulty network on a simulated clock, all by one seed, with what must hold.

What delivers messages is the runtime's own `Session`, what restarts an actor its own `Life`; the network, the processes
and the time are simulated, and so a run with the same seed is the same run. The promises are those of the runtime:
order, at most once, one answer, true verdicts, and that what was acknowledged is in the state.
"""

from .collectives import simulate_collectives as simulate_collectives
from .crowd import simulate_crowd as simulate_crowd
from .faults import FAULTS as FAULTS
from .faults import Fault as Fault
from .membership import simulate_membership as simulate_membership
from .names import simulate_names as simulate_names
from .outcome import Journal as Journal
from .outcome import Outcome as Outcome
from .ownership import simulate_ownership as simulate_ownership
from .running import REPLAY as REPLAY
from .running import SimulationError as SimulationError
from .running import simulate as simulate
