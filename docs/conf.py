"""Configuration of the documentation: Sphinx with MyST-NB, furo and sphinx-click."""

import harness

project = "harness"
author = "the authors of harness"
version = release = harness.__version__
extensions = ["myst_nb", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "harness"
html_last_updated_fmt = None
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test executes the notebook
autodoc_typehints = "description"
suppress_warnings = ["myst.xref_missing"]  # links to files outside docs/, which a test follows
