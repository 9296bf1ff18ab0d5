"""How the pages become a site: ``make docs``."""

import sys
from pathlib import Path
from typing import Any

from actors.version import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "mlx-actors"
author = "the mlx-actors maintainers"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "mlx-actors"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the tests run the notebooks

# Links to files beside the pages, such as the examples, lead into the repository and not to a page.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure", "toc.not_included"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_ivar = True
default_role = "code"  # in docstrings, single backquotes name things


def _write_errors(_: Any) -> None:
    """The page of all error messages is made of the code."""
    from error_messages import page

    Path(__file__).with_name("errors.md").write_text(page(), "utf-8")


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("builder-inited", _write_errors)
