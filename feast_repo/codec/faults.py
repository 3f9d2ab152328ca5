"""Why a given value is no value of its field."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """The kinds of reasons `<fault>:<field>`, in the order in which they are given."""

    TYPE = "type"
    TIMEZONE = "timezone"
    PRECISION = "precision"
