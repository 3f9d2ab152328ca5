"""Reading and writing Feast's stores: online in Redis, offline in Parquet, the registry, and the push.

In: rows with declared columns. Out: the same rows, by entity or as of a time.
Guarantee: files are durable before they are visible, and an older row never replaces a newer one.
"""
