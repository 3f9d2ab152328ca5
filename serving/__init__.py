"""Purchase predictions from online features: reader, model, HTTP service, command."""
