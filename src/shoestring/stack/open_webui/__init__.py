"""Open WebUI: its own environment, its safe settings, and a client of its API."""
