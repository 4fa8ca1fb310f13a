"""The pipelines, as tables to read aloud: which pass runs when, and why there.

`PASSES` are the passes by name, `PIPELINES` the orders in which they run, `ORDER` what must come before
what. A pass only transforms; the runner does all the rest.
"""
