"""The language of declarations: what an event, a feature and a view are.

In: nothing but Python values that a user writes. Out: frozen objects that every other room derives from.
Guarantee: importing it imports no Feast, no Kafka and no Bytewax, and no declaration has a meaning outside it.
"""
