"""What is this model: where does it come from, is its file whole, and what is in it?

A model is named by one string (:mod:`shoestring.models.names`), brought to a file whose every byte
is checked (:mod:`shoestring.models.fetch`), and described from its own header
(:mod:`shoestring.models.facts`). Nothing here knows how an engine runs it.
"""
