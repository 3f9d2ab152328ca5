"""What `feast apply` reads in this folder."""

from __future__ import annotations

from feast_repo.feast_objects import feast_objects

globals().update(feast_objects(__file__))
