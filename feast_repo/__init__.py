"""What the features are: declarations, Feast objects, store plug-ins and the push into them."""
