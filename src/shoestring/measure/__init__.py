"""How is it measured: suites, load shapes, the runner, raw records, resume."""
