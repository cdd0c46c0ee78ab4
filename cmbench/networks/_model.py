"""Former place of `cmbench.model`, which user-defined classes may still import from here."""

from cmbench.model import Model as Model
from cmbench.model import OnEDMPath as OnEDMPath
