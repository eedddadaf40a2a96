"""What would a pool of thousands do: what it costs, how fast it is, who earns, who can cheat it?"""
