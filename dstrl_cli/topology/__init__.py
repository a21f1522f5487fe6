"""Registry of the drop and grow scores: a new score is one new file and one line here.

Names only, so that configurations are checked without importing torch; `topology.rule` loads the
classes.
"""

DROP_SCORES: dict[str, str] = {
    "magnitude": "dstrl_cli.topology.magnitude:Magnitude",
    "sign": "dstrl_cli.topology.sign:Sign",
    "importance": "dstrl_cli.topology.importance:Importance",
}

GROW_SCORES: dict[str, str] = {
    "random": "dstrl_cli.topology.random:Random",
    "gradient": "dstrl_cli.topology.gradient:Gradient",
    "importance": "dstrl_cli.topology.importance:Importance",
}

CRITIC_SCORES = frozenset({"importance"})
"""Scores that look at the TD error, which only critics have."""
