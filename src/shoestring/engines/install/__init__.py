"""How do the real engines come onto this machine: pinned, checked, and either whole or absent?"""
