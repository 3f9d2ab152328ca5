"""What the features are, and how they reach Feast: a Feast repository.

In: the declarations of a user. Out: Feast objects, and stores that Feast, the stream, batch and serving share.
Guarantee: whatever reads or writes a feature derives from its one declaration.
"""
