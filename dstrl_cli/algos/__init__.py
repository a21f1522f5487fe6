"""The algorithms, and what they cost. `dstrl_cli.registry` lists them by name."""
