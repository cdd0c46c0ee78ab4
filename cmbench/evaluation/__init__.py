"""Measures, one a file; the file name is the name, and `cmbench.measures` says what is known of each.

A measure of samples is a function of the file's name: (x, y) -> float, of samples x (n, ...) and real data y (m, ...),
or of features of both. It is nan where there are too few of them. Measures of the consistency function are classes.
"""
