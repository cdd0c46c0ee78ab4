"""Former place of `cmbench.model`, which classes of users may still import."""

from cmbench.model import Model as Model
from cmbench.model import OnEDMPath as OnEDMPath
