"""Errors that the user can mend, said in one line."""

from __future__ import annotations

import importlib.util

INSTALL = 'pip install "skspec[all]"'


class UserError(Exception):
    """Something the user can mend, said in one line."""


def one_line(error):
    return " ".join(str(error).split())


def has_package(package):
    return importlib.util.find_spec(package) is not None
