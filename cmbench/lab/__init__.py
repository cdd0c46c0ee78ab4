"""One claim of the theory per file: its statement, and its measurement on a problem with a closed form."""

from cmbench.lab._claims import Claim as Claim
from cmbench.lab._claims import all_claims as all_claims
from cmbench.lab._claims import chosen as chosen
from cmbench.lab._claims import measure as measure
from cmbench.lab._finding import Chart as Chart
from cmbench.lab._finding import Curve as Curve
from cmbench.lab._finding import Finding as Finding
from cmbench.lab._finding import Measure as Measure
