"""Collectives: arrays reduced, gathered and scattered among the actors of a group."""

from .functions import allgather as allgather
from .functions import allreduce as allreduce
from .functions import alltoall as alltoall
from .functions import average_gradients as average_gradients
from .functions import barrier as barrier
from .functions import broadcast as broadcast
from .functions import gather as gather
from .functions import get_group as get_group
from .functions import get_rank as get_rank
from .functions import get_world_size as get_world_size
from .functions import rebuild as rebuild
from .functions import recv as recv
from .functions import reduce as reduce
from .functions import reducescatter as reducescatter
from .functions import scatter as scatter
from .functions import send as send
from .functions import split as split
from .later import Work as Work
from .making import create_group as create_group
from .making import destroy_group as destroy_group
