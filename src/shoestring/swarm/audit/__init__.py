"""Did a node compute what it was paid for, and was it there when it says so?"""
