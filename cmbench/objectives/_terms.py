"""Former place of `cmbench.contracts`, which objectives of users may still import."""

from cmbench.contracts import Anatomy as Anatomy
from cmbench.contracts import Teacher as Teacher
from cmbench.contracts import Terms as Terms
from cmbench.contracts import weighted as weighted
