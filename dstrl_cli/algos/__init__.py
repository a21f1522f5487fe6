"""Registry of the algorithms: a new one is one file, one line here and `presets/algos/NAME.yaml`.

Names only, so that configurations are checked without importing torch.
"""

ALGORITHMS: dict[str, str] = {
    "td3": "dstrl_cli.algos.td3:TD3",
    "sac": "dstrl_cli.algos.sac:SAC",
}
