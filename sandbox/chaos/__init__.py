"""The fault drill: breaks the real parts repeatedly while clicks arrive, and then counts the damage.

In: seeds and kinds of faults. Out: the number of rows that are lost, duplicated, wrong or behind.
Guarantee: the expected rows are recomputed from the topic by code that the stream does not use.
"""
