"""Figures of runs: what is drawn, and how. matplotlib (extra `plot`) is imported when drawing.

Each kind of figure has a file of its own: a function that computes what is drawn, and one that
draws it. Statistics and intervals are those of tables (`report`).
"""
