"""Sphinx configuration: make doc, or sphinx-build -W doc doc/_build/html."""

from skspec import __version__

project = "skspec"
author = "the skspec developers"
copyright = "the skspec developers"  # noqa: A001  Sphinx wants this name
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "literal"  # single backquotes in docstrings name parameters

autosummary_generate = True
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings say more, and signatures stay readable
numpydoc_show_class_members = False  # the templates list them
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = f"skspec {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]  # code of 100 columns without a scroll bar
html_theme_options = {"navigation_with_keys": False, "show_prev_next": True}
html_sidebars = {"install": [], "glossary": [], "whats_new": []}
html_copy_source = html_show_sourcelink = False


def _escape_star(app, what, name, obj, options, lines):
    """A star after a bracket, as in a shape ``(*size, K)``, is no emphasis."""
    lines[:] = [line.replace("(*", r"(\*") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _escape_star, priority=900)  # after numpydoc
