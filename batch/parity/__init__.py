"""Parity of stream and batch: stored rows are recomputed and compared value by value.

In: a range of windows. Out: a report, and exit code 1 for any difference that late events do not explain.
Guarantee: a row counts as equal only if it is bit-identical.
"""
