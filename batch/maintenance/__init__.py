"""Upkeep of the stores: compaction, materialization of batch views, and refilling Redis.

In: stored rows. Out: the same rows, in fewer files or in Redis.
Guarantee: each job can be interrupted and restarted at any moment, while the stream runs.
"""
