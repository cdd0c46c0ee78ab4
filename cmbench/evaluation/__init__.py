"""Measures, one per file and named like it; `cmbench.measures` describes each.

A measure of samples is a function named like its file: (x, y) -> float, of samples x (n, ...) and real data y (m, ...),
or of features of both. It is nan if there are too few samples. Measures of the consistency function are classes.
"""
