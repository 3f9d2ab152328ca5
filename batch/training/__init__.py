"""Training sets: labelled (entity, time) pairs, each with the features that serving had at that time.

In: stored features and the archive. Out: one Parquet file.
Guarantee: no value that was not served at the time of its row.
"""
