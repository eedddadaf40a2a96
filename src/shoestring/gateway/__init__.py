"""The secured service: who may ask an engine what, how much and how fast, and what came of it.

A request goes one way: its caller is known (:mod:`keys`), may ask (:mod:`limiting`), is perhaps
answered from memory (:mod:`cache`), gets a target (:mod:`routing`), waits its turn
(:mod:`queueing`), is relayed as it is made (:mod:`relaying`) and is counted (:mod:`metrics`).
"""
