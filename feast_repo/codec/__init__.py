"""Bytes to validated columns, and back: the single entry for topic, history and replay.

In: messages as bytes, or columns of declared types. Out: accepted records, and dead letters with the first reason.
Guarantee: never raises on bad input, and decoding a batch equals decoding each message by itself.
"""
