"""The offline store: Parquet in day folders, and the point-in-time join over it.

In: rows, in files that appear atomically. Out: rows of a range, or as of each time in an entity frame.
Guarantee: a reader sees each row once, whatever is compacted meanwhile.
"""
