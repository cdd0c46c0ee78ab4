"""Former place of `cmbench.anatomy`, which objectives of users may still import."""

from cmbench.anatomy import factors as factors
from cmbench.anatomy import of_f as of_f
