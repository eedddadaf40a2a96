"""Which nodes sell layers at what price, and which are best for a request?"""
