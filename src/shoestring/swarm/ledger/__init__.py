"""Who owes whom how much, and can that be shown to anybody?"""
