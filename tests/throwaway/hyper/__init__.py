"""A method outside this repository's packages, in two files: a hypernetwork, after arXiv 2406.01601.

It learns nothing: a fixed random projection makes of what a device has seen an adapter of its own. What it
shows is that a method from outside needs no edit inside.
"""
