"""How near edits come to the exact conditional: the table of docs/editing.md. `python benchmarks/editing.py`.

Eight points: (-a, 1) three times, (-a, -1); (a, 1), (a, -1) three times. The first number is known to be -a. So the
second is 1 with probability .75. Results of algorithm 4 with the closed-form f are counted.
"""

import torch

from cmbench.equations import editing, oracle, sampling
from cmbench.equations.gaussian_path import EDM
from cmbench.equations.timesteps import karras_grid

POINTS = [[-1, 1]] * 3 + [[-1, -1]] + [[1, 1]] + [[1, -1]] * 3
HALF_GAPS, STEPS, N = (0.5, 1.0, 2.0, 4.0), (1, 2, 5, 10, 40), 10_000
SIGMA_MIN, SIGMA_MAX, FLOW = 0.01, 80.0, 40


def share(half_gap: float, steps: int) -> float:
    """Return the share of results whose second number is near 1."""
    points = torch.tensor([[half_gap * a, b] for a, b in POINTS], dtype=torch.float64)
    denoiser, generator = oracle.FinitePoints(points).denoise, torch.Generator().manual_seed(0)
    x = editing.edited(
        lambda x, t: sampling.heun_ode(denoiser, x / t[0], karras_grid(FLOW, SIGMA_MIN, t[0].item()).flip(0).tolist()),
        torch.tensor([[-half_gap, 0.0]], dtype=torch.float64).expand(N, 2),
        editing.inpainting(torch.tensor([[False, True]])),
        [torch.tensor([s], dtype=torch.float64) for s in sampling.consistency_sigmas(steps, SIGMA_MIN, SIGMA_MAX)],
        EDM(),
        SIGMA_MIN,
        lambda: torch.randn(N, 2, dtype=torch.float64, generator=generator),
    )
    return (x[:, 1] > 0.5).double().mean().item()


if __name__ == "__main__":
    print(f"| half gap of the known number | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print("|---" * (len(STEPS) + 1) + "|")
    for half_gap in HALF_GAPS:
        print(f"| {half_gap:g} | {' | '.join(f'{share(half_gap, steps):.2f}' for steps in STEPS)} |", flush=True)
