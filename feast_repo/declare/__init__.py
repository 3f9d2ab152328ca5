"""The declaration language: events, features and views.

In: Python values that a user writes. Out: frozen objects that every other package derives from.
Guarantee: importing it imports no Feast, no Kafka and no Bytewax, and no declaration has a meaning outside it.
"""
