"""A value and its derivative along a direction in one pass, of which the value alone is recorded for backward."""
