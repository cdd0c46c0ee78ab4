"""Former place of `cmbench.finite`, which data sets of users may still import."""

from cmbench.finite import Finite as Finite
from cmbench.finite import as_float as as_float
