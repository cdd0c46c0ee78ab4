"""Values of hypothesis outside of a test, the same ones for the same seed."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(tempfile.gettempdir(), "cmbench-torture"))


def drawn(strategy: "st.SearchStrategy[Any]", count: int, number: int) -> list[Any]:
    """Return so many values of a strategy."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return (found * count)[:count]


TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", " ", "\x1b[2J", "\u202eabc", "a\nb", "é" * 200, "x" * 5000, "../../etc/passwd", "/dev/zero"]),
    st.sampled_from(["-", "--help", "@latest", "@latest:", "nan", "inf", "²", "1_000", "0x10", "[red]", "{7}", "%s"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 1e308, 5e-324, -0.0]),
)
SCALARS = st.one_of(st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)
