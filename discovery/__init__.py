"""Find the nodes of a local network: over DNS-SD (`advertise`, `browse`, `reside` for both) or at given addresses."""

from .advertisement import Advertisement as Advertisement
from .advertisement import advertise as advertise
from .browser import Browser as Browser
from .errors import DiscoveryError as DiscoveryError
from .given import fixed as fixed
from .interfaces import Interfaces as Interfaces
from .record import Changed as Changed
from .record import Event as Event
from .record import Found as Found
from .record import Lost as Lost
from .record import NodeRecord as NodeRecord
from .search import browse as browse
from .search import reside as reside
