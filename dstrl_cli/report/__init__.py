"""Reports: what the files of finished and running runs say, in the papers' kind of table.

Reads CSV, JSON and YAML only; neither torch nor gymnasium is ever imported from here.
"""

from dstrl_cli.report.tables import Table, table

__all__ = ["Table", "table"]
