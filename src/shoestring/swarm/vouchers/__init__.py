"""How is a node paid outside of our own ledger?"""
