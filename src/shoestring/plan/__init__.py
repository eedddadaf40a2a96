"""Does it fit: what a model needs at a context, and what of it a machine can hold."""
