"""Reports: what the files of finished and running runs say, in the papers' kind of table.

Reads logs, archives of them, and masks of policies; neither torch nor gymnasium is ever imported
from here. Tables are made by `tables.table` and printed by `render.render`; `frames` gives the same
as DataFrames.
"""
