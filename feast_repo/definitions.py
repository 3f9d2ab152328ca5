"""What `feast apply` reads in this folder. A feature repository of your own has a file like this."""

from __future__ import annotations

from feast_repo.feast_objects import feast_objects

globals().update(feast_objects(__file__))
