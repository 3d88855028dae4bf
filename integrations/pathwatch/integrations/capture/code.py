"""Which functions a module's forward pass uses, by the names in its code."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import CodeType, FunctionType


def names_used(cls: type) -> frozenset[str]:
    """Names of the functions, methods and attributes that the code of `cls.forward` uses.

    Followed are methods of the class and its bases, and functions, of the same source file.
    """
    seen: set[CodeType] = set()
    used: set[str] = set()
    functions = [inspect.unwrap(cls.forward)] if hasattr(cls, "forward") else []
    while functions:
        function = functions.pop()
        if not isinstance(function, FunctionType) or function.__code__ in seen:
            continue
        seen.add(function.__code__)
        for name in _names(function.__code__):
            used.add(name)
            for found in (*(vars(base).get(name) for base in cls.__mro__), function.__globals__.get(name)):
                if isinstance(found, FunctionType) and found.__module__ == function.__module__:
                    functions.append(inspect.unwrap(found))
    return frozenset(used)


def _names(code: CodeType) -> Iterable[str]:
    """Global names, attributes and methods in a function's code, nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
