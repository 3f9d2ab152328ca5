"""The declaration language: events, features and views.

    from feast_repo.declare import Catalog, Count, Entity, EventStream, Text, Timestamp, WindowedView, field

In: Python values that a user writes. Out: frozen objects that every other package derives from.
Guarantee: importing it imports no Feast, no Kafka and no Bytewax, and no declaration has a meaning outside it.
"""

from __future__ import annotations

from feast_repo.declare.algebra import Count, Max, Mean, Min, Ratio, Sum, field
from feast_repo.declare.batch_views import BatchFeature, BatchView
from feast_repo.declare.catalog import Catalog
from feast_repo.declare.entities import Entity
from feast_repo.declare.events import EventStream
from feast_repo.declare.fields import Bool, Choice, Decimal, Integer, Text, Timestamp
from feast_repo.declare.labels import Label
from feast_repo.declare.services import FeatureService
from feast_repo.declare.views import WindowedView

__all__ = [
    "BatchFeature",
    "BatchView",
    "Bool",
    "Catalog",
    "Choice",
    "Count",
    "Decimal",
    "Entity",
    "EventStream",
    "FeatureService",
    "Integer",
    "Label",
    "Max",
    "Mean",
    "Min",
    "Ratio",
    "Sum",
    "Text",
    "Timestamp",
    "WindowedView",
    "field",
]
