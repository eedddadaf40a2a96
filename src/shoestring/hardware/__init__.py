"""What is this machine, and what does it do now?

:mod:`shoestring.hardware.machine` describes it once: processor, memory, GPUs, platform.
:mod:`shoestring.hardware.telemetry` watches it while something runs.
Nothing here knows what a model is.
"""
