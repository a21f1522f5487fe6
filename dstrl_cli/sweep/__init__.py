"""Sweeps: what to run (`plan`), in which populations (`packing`), and running it.

`local` runs it on this machine, `on_ray` on a cluster; `study` adds seeds until a test decides.
"""
