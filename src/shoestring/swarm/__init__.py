"""How does one engine become many peers?"""
