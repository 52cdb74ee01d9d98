"""Constructor parameters that a family of estimators shares: written once, seen in every class."""

from __future__ import annotations

import re
from inspect import Parameter, Signature, cleandoc, signature

__all__ = ["SharedParameters"]

HEADING = re.compile(r"^(\S.*)\n-{3,}[ \t]*$", re.MULTILINE)


class SharedParameters:
    """Base of estimators whose subclasses take the parameters of their parents as ``**shared``.

    A subclass whose ``__init__`` ends in ``**shared``, and hands that on, has all parameters of its
    parents that it does not declare itself::

        class TheCannon(ForwardModel):
            def __init__(self, degree=2, *, terms=None, **shared):
                super().__init__(**shared)
                self.degree = degree
                self.terms = terms

    They are in its signature (so that ``get_params``, ``clone``, completion and documentation know each
    by name), in its ``_parameter_constraints``, and, with what the parent says of them, in the section
    "Parameters" of its docstring. What the subclass says of a parameter itself stands. A parameter
    with another default is declared, and handed on: ``super().__init__(max_iter=max_iter, **shared)``.
    A subclass without a constructor has that of its parents, and what they say of it.

    A class whose ``__init__`` lists everything is left as it is.
    """

    def __init__(self, **unknown):
        if unknown:
            name = next(iter(unknown))
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
        super().__init__()

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = vars(cls).get("__init__")
        if own is not None:
            cls._own_signature = signature(own)  # before it is told what `**shared` stands for
            if not _takes_more(cls._own_signature):
                return
        parameters = _merged_parameters(cls)
        if own is None and parameters.keys() - signature(cls.__init__).parameters.keys():
            own = cls.__init__ = _handing_on(cls)  # of several parents, each with its own
        if own is not None:
            own.__signature__ = Signature(list(parameters.values()))
            cls._parameter_constraints = _merged_constraints(cls, parameters)
        if cls.__doc__ is not None:  # as it is with python -OO
            cls.__doc__ = _completed(cleandoc(cls.__doc__), _inherited_entries(cls, parameters))


# a class without parameters has none; the others declare theirs
vars(SharedParameters)["__init__"].__signature__ = Signature(
    [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
)


def _takes_more(own):
    return any(each.kind is Parameter.VAR_KEYWORD for each in own.parameters.values())


def _merged_parameters(cls):
    """Parameters of all constructors that are reached by handing ``**shared`` on, `self` included."""
    merged, kind = {}, None
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base in (SharedParameters, object):
            continue
        own = vars(base).get("_own_signature") or signature(vars(base)["__init__"])
        for name, each in own.parameters.items():
            if each.kind is not Parameter.VAR_KEYWORD and name not in merged:
                merged[name] = each.replace(kind=kind or each.kind)
        if not _takes_more(own):
            break
        kind = Parameter.KEYWORD_ONLY  # as `**shared` hands them on
    return merged


def _handing_on(cls):
    def __init__(self, *args, **shared):
        super(cls, self).__init__(*args, **shared)

    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def _merged_constraints(cls, parameters):
    merged = {}
    for base in reversed(cls.__mro__):
        merged |= vars(base).get("_parameter_constraints", {})
    return {name: merged[name] for name in parameters if name in merged}


def _inherited_entries(cls, parameters):
    """What the parents' docstrings say of each parameter, the nearest parent first."""
    parents = [
        _entries(cleandoc(base.__doc__))
        for base in cls.__mro__[1:]
        if base is not object and vars(base).get("__doc__")
    ]
    return {
        name: next(found[name] for found in parents if name in found)
        for name in parameters
        if any(name in found for found in parents)
    }


def _span(doc):
    """Where the section "Parameters" begins and ends, without its heading; None without one."""
    headings = list(HEADING.finditer(doc))
    for heading, following in zip(headings, [*headings[1:], None]):
        if heading[1].strip() == "Parameters":
            return heading.end(), len(doc) if following is None else following.start()
    return None


def _entries(doc):
    """Entries of the section "Parameters" by name, each with its description."""
    span = _span(doc)
    if span is None:
        return {}
    entries = {}
    for block in re.split(r"\n(?=\S)", doc[slice(*span)].strip("\n")):
        head, _, description = block.partition("\n")
        names, colon, kind = head.partition(" :")
        for name in names.split(","):
            entry = f"{name.strip()}{colon}{kind}\n{description}"
            entries[name.strip()] = entry.rstrip()
    return entries


def _completed(doc, inherited):
    """A docstring with what it does not say itself at the end of its parameters."""
    own = _entries(doc)
    added = "\n".join(entry for name, entry in inherited.items() if name not in own)
    if not added:
        return doc
    span = _span(doc)
    if span is not None:
        before, after = doc[: span[1]].rstrip(), doc[span[1] :]
    else:
        heading = HEADING.search(doc)
        at = len(doc) if heading is None else heading.start()
        before, after = doc[:at].rstrip() + "\n\nParameters\n----------", doc[at:]
    return f"{before}\n{added}\n\n{after}".rstrip() + "\n"
