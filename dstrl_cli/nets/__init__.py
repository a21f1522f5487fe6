"""Networks of a population: `network` is one role of all members, the engines are behind it.

Registry of the engines by name, without importing torch.
"""

ENGINES: dict[str, str] = {
    "masked": "dstrl_cli.nets.masked:MaskedNetwork",
    "sparse": "dstrl_cli.nets.sparse.engine:SparseNetwork",
}
