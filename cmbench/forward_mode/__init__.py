"""A value and its derivative along a direction in one pass; only the value is recorded for backward."""
