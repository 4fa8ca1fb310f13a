"""A package, so that its tests may be named as those of the CPU's emitters are."""
