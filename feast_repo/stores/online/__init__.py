"""The online store: Feast's Redis format, written as columns.

In: rows by entity. Out: the newest row of each entity.
Guarantee: byte for byte what `FeatureStore.push` writes; each row is compared and set in one atomic step.
"""
