"""How does a stranger promise money so that a node can fetch it later, and needs no chain until?"""
