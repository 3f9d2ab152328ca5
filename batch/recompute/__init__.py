"""Features recomputed from the event archive, by Polars or Spark.

In: archived records and a range of windows. Out: rows, bit-identical with the stream's (`as-seen`), or those of all
valid records (`complete`).
Guarantee: nothing beyond what the stream has committed is read, and both engines return the same rows.
"""
