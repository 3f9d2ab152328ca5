"""Shopper profiles: the subscription tiers and countries, and how common each is."""

from __future__ import annotations

TIERS = {"free": 0.70, "basic": 0.22, "premium": 0.08}

COUNTRIES = {
    "US": 0.30, "DE": 0.13, "GB": 0.12, "IN": 0.10, "FR": 0.09,
    "BR": 0.08, "CA": 0.06, "JP": 0.05, "ES": 0.04, "AU": 0.03,
}  # fmt: skip
