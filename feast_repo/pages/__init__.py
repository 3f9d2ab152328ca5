"""HTML reports: one base template and one style sheet for self-contained single-file pages.

In: a template beside the module that fills it, and values. Out: an HTML document.
Guarantee: values are escaped, a name without a value is an error, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).resolve().parent


def render(template: Path, **values: Any) -> str:
    """A page from a template file, which extends `base.html`."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"thousands": "{:,}".format, "minute": _minute}
    return environment.get_template(template.name).render(values)


def _minute(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
