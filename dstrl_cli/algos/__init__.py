"""Registry of the algorithms: a new one is one file, its lines here and `presets/algos/NAME.yaml`.

What it costs is a line of `accounting.COSTS`.

Names only, so that configurations are checked without importing torch.
"""

ALGORITHMS: dict[str, str] = {
    "td3": "dstrl_cli.algos.td3:TD3",
    "sac": "dstrl_cli.algos.sac:SAC",
}

ACTOR_OUTPUTS: dict[str, int] = {"td3": 1, "sac": 2}
"""Outputs of the actor per action dimension: an action; a mean and a log standard deviation."""
