"""dstrl: dynamic sparse training for deep reinforcement learning.

Importing the package imports none of its parts: the command line, the environments and the
reports stay fast to load, and torch is imported only by what trains.
"""

__version__ = "0.1.0"
