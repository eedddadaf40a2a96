"""How is a run shown? Figures, tables, numbers for the paper, and one offline HTML page."""
