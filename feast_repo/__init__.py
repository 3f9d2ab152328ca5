"""The feature declarations and their path into Feast: a Feast repository.

In: a user's declarations. Out: Feast objects, and stores shared by Feast, the stream, batch and serving.
Guarantee: everything that reads or writes a feature derives from its one declaration.
"""
