"""Enums whose members users name."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from glyph_rt.errors import OptionError

E = TypeVar("E", bound=Enum)


def by_name(kind: type[E], name: str, noun: str, field: str = "") -> E:
    """The member whose value is `name`. noun, field: what the members are called, and the part of a request that names one.

    Raises OptionError, with all there are.
    """
    try:
        return kind(name)
    except ValueError:
        told = f"no {noun} {name!r}; choose one of: {', '.join(member.value for member in kind)}"
        raise OptionError(told, public=told, field=field) from None
