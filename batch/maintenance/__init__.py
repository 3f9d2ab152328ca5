"""Upkeep of the stores: compaction, materialization of batch views, and refilling Redis.

In: stored rows. Out: the same rows, in fewer files or in Redis.
Guarantee: each can be interrupted and started again at any moment, while the stream runs.
"""
