"""What did a node compute for whom, as both of them sign?"""
