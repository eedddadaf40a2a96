"""What does a quantisation cost: make it, and see what became of the model."""
