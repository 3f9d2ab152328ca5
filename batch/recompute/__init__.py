"""Features recomputed from the event archive, by Polars or Spark.

In: archived records and a range of windows. Out: rows, bit-identical with the stream's (`as-seen`), or those of all
valid records (`complete`).
Guarantee: both engines read only what the stream has committed, and return the same rows.
"""
