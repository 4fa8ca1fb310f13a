"""How each op works on padded arrays: tables of rules for the pass dynamic_padding, a file for each family.

A value of a bounded dynamic shape is padded to its bounds here: its live elements lie at the low end of every
dimension, the others may hold anything. Rules see to it that no live element comes to depend on a dead one.
"""
