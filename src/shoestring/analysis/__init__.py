"""What do the raw events mean: metrics, intervals, warnings, comparisons?

The way through the room, from one row to one verdict:

- ``metrics``: one raw row becomes the metrics of one request (no statistics).
- ``stats``: pure functions over numbers (no rows).
- ``samples``: the measured rows, sorted by case and block.
- ``calibration``: the error floor of the client's own clock, as the sessions measured it.
- ``arrivals``: whether an open loop sent when it was meant to.
- ``structured``: whether answers are the JSON that was asked for.
- ``machine``: what must be equal where two sessions are compared.
- ``telemetry``: what the machine did meanwhile: the third clock, and energy.
- ``sessions``: memory and interruptions of the engine, as the sessions recorded them.
- ``frames``: the same rows as pandas frames, for figures and notebooks.
- ``warnings``: what makes a number doubtful, and the next step; ``noise`` holds the rules about the
  machine, ``evidence`` what all rules look at.
- ``summary``: one run as one JSON object, ``report --json``.
- ``compare``: two runs as one JSON object, ``compare --json``.

Every field is defined in ``docs/metrics.md``.
Nothing is imported here, so that importing the room costs nothing.
"""
