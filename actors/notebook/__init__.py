"""Actors in a notebook: things have pictures, and what actors print is shown in the cell that caused it.

``import actors`` in a notebook is enough. Nothing here needs a widget extension, or anything of the network's.
"""

from actors.notebook.setting import enable as enable
from actors.notebook.setting import load_ipython_extension as load_ipython_extension
