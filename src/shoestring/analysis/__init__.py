"""What do the raw events mean: metrics, intervals, warnings, comparisons?

The way through the room, from one row to one verdict:

- ``metrics``: one raw row becomes the metrics of one request (no statistics).
- ``stats``: pure functions over numbers (no rows).
- ``samples``: the measured rows, sorted by case and block.
- ``calibration``: the error floor of the client's own clock, as the sessions measured it.
- ``machine``: what must be equal where two sessions are compared.
- ``frames``: the same rows as pandas frames, for figures and notebooks.
- ``warnings``: what makes a number doubtful, and the next step.
- ``summary``: one run as one JSON object, ``report --json``.
- ``compare``: two runs as one JSON object, ``compare --json``.

Every field is defined in ``docs/metrics.md``.
Nothing is imported here, so that importing the room costs nothing.
"""
