"""torchrun for commands with --gpus: one exit code from those of its ranks."""

import pytest

from cmbench.engine import agent


@pytest.mark.parametrize(
    ("of_ranks", "code"),
    [
        ({0: 2, 1: 2}, 2),
        ({0: 75, 1: 1}, 75),
        ({1: 4}, 4),  # rank 0 had not ended when torchrun looked
        ({0: -15, 1: 4}, 4),  # torchrun ended rank 0
        ({0: 1, 1: -9}, 137),  # rank 0 says that it has lost rank 1
        ({0: -15, 1: -11, 2: 1}, 139),
        ({0: -15, 1: -15}, 143),
        ({}, 1),
    ],
)
def test_the_code_of_ranks_is_the_one_that_a_single_process_would_have(of_ranks, code):
    assert agent.exit_code(of_ranks) == code
