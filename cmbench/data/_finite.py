"""Former place of `cmbench.finite`, which user-defined data sets may still import from here."""

from cmbench.finite import Finite as Finite
from cmbench.finite import as_float as as_float
