"""dstrl's own environments and task sets."""
