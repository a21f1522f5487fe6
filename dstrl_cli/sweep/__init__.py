"""Sweeps: what to run (`plan`) and running it on this machine (`local`)."""
