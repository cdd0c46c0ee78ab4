"""Former place of `cmbench.contracts`, which user-defined objectives may still import from here."""

from cmbench.contracts import Anatomy as Anatomy
from cmbench.contracts import Teacher as Teacher
from cmbench.contracts import Terms as Terms
from cmbench.contracts import weighted as weighted
