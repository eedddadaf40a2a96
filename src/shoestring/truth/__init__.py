"""What does a client measure when the truth is known?

A streaming server whose schedule and faults stand in the name of the model, and whose chunks carry
the time at which they were sent. A client's clock error is its own stamp minus that one.
The wire is described in ``docs/truth.md``.
"""
