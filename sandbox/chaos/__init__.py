"""The fault drill: the real parts, broken again and again while clicks come in, and then counted.

In: seeds and kinds of faults. Out: how many rows were lost, twice, wrong or behind.
Guarantee: what is expected is recomputed from the topic by code that the stream does not use.
"""
