"""Generators for other programs: weights and sampler as one function, in one format a file; checked without cmbench."""
