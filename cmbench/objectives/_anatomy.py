"""Former place of `cmbench.anatomy`, which user-defined objectives may still import from here."""

from cmbench.anatomy import factors as factors
from cmbench.anatomy import of_f as of_f
