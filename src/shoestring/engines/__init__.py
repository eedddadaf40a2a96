"""How do I start, stop, ask and stream from an engine, with one protocol for all of them?"""
