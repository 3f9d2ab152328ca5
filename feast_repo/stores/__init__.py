"""How rows reach Feast's stores and come back: online in Redis, offline in Parquet, the registry, and the push.

In: rows with declared columns. Out: the same rows, by entity or as of a time.
Guarantee: what is written is durable before it is visible, and an older row never replaces a newer one.
"""
