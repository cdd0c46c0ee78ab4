import math

import pytest
import torch
from torch.nn.functional import dropout

from cmbench.errors import UsageError
from cmbench.randomness import Part, StepRandom, forked_seed

CPU = torch.device("cpu")
LIKE = torch.empty(3, 4)


def test_equal_seeds_steps_and_streams_give_equal_numbers():
    one, two = StepRandom(CPU, 1, 2), StepRandom(CPU, 1, 2)
    assert torch.equal(one.noise(LIKE), two.noise(LIKE))
    assert torch.equal(one.noise(LIKE), one.noise(LIKE))
    assert one.stream_seed("time") == two.stream_seed("time")


def test_seeds_steps_and_streams_all_tell_numbers_apart():
    seeds = {
        StepRandom(CPU, seed, step).stream_seed(stream)
        for seed in range(10)
        for step in range(10)
        for stream in ("time", "noise", "dropout", "order", "flip", "data")
    }
    assert len(seeds) == 600


def test_stream_seeds_are_63_mixed_bits():
    """Each bit is set in about half of the seeds of successive steps."""
    seeds = [StepRandom(CPU, 0, step).stream_seed("noise") for step in range(1000)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    shares = [sum(seed >> bit & 1 for seed in seeds) / 1000 for bit in range(63)]
    assert shares == pytest.approx([0.5] * 63, abs=5 * 0.5 / math.sqrt(1000))


def test_generators_of_one_stream_start_alike_and_know_nothing_of_the_global_one():
    random = StepRandom(CPU, 1, 2)
    torch.manual_seed(7)
    first = torch.rand(5, generator=random.generator("time"))
    torch.manual_seed(8)
    assert torch.equal(first, torch.rand(5, generator=random.generator("time")))
    assert not torch.equal(first, torch.rand(5, generator=random.generator("flip")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_standard_normal_in_the_shape_and_type_of_its_model(dtype):
    noise = StepRandom(CPU, 0, 0).noise(torch.empty(100, 10, 10, dtype=dtype))
    assert noise.shape == (100, 10, 10)
    assert noise.dtype == dtype
    assert noise.mean().item() == pytest.approx(0, abs=4 / 100)
    assert noise.std().item() == pytest.approx(1, abs=4 / 100 / math.sqrt(2))


def test_noise_of_successive_steps_is_uncorrelated():
    one, two = (StepRandom(CPU, 0, step).noise(torch.empty(10_000)) for step in (0, 1))
    assert (one * two).mean().item() == pytest.approx(0, abs=4 / 100)


def uniform(n, generator):
    return torch.rand(n, 2, generator=generator)


def test_draw_is_the_generator_s_and_a_part_s_rows_are_those_of_the_whole_batch():
    random, like = StepRandom(CPU, 1, 2), torch.empty(7, 3, dtype=torch.float64)
    whole, noise = random.draw("time", 7, uniform), random.noise(like)
    assert torch.equal(whole, uniform(7, random.generator("time")))
    for part in (Part(0, 7, 7), Part(0, 2, 7), Part(2, 6, 7), Part(6, 7, 7)):
        own = StepRandom(CPU, 1, 2, part=part)
        assert torch.equal(own.draw("time", len(part), uniform), whole[part.rows])
        assert torch.equal(own.noise(like[part.rows]), noise[part.rows])
        assert torch.equal(own.rows(whole), whole[part.rows])
        assert (own.whole(len(part)), own.batch) == (7, random)


def test_a_part_refuses_what_would_not_be_its_rows():
    own = StepRandom(CPU, 1, 2, part=Part(2, 6, 7))
    with pytest.raises(
        UsageError, match=r'random.generator\("time"\): found .*several ranks .*allowed: random.draw\("time", n, draw\)'
    ):
        own.generator("time")
    with pytest.raises(ValueError, match="found n = 7, allowed: the 4 samples of the part"):
        own.draw("time", 7, uniform)
    with pytest.raises(ValueError, match="found 4 rows, allowed: the 7 of the whole batch"):
        own.rows(torch.zeros(4))
    for rows in ((-1, 2, 7), (2, 2, 7), (3, 2, 7), (2, 8, 7)):
        with pytest.raises(ValueError, match="allowed: some of 0 to 7"):
            Part(*rows)


def test_a_part_s_mask_is_that_of_its_start():
    step, first, again, second = (
        mask(StepRandom(CPU, 1, 2, part=part)) for part in (None, Part(0, 4, 8), Part(0, 2, 8), Part(4, 8, 8))
    )
    assert torch.equal(step, first)
    assert torch.equal(step, again)
    assert not torch.equal(step, second)


def mask(random):
    with random.dropout():
        return dropout(torch.ones(1000), 0.5)


def test_dropout_is_the_same_within_a_step_and_another_in_the_next():
    random = StepRandom(CPU, 1, 2)
    assert torch.equal(mask(random), mask(random))
    assert not torch.equal(mask(random), mask(StepRandom(CPU, 1, 3)))
    assert not torch.equal(mask(random), mask(StepRandom(CPU, 2, 2)))


def test_dropout_leaves_the_default_generator_as_it_was():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    mask(StepRandom(CPU, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_default_generator_is_put_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), forked_seed(3):
        1 // int(0 * torch.rand(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_forked_seed_draws_what_the_seed_draws():
    with forked_seed(3, CPU):
        inside = torch.rand(4)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(3)))


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs' default generators, as torch keeps them, without a GPU; the first is the current one."""
    generators = tuple(torch.Generator().manual_seed(seed) for seed in (21, 22))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    return generators


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_the_gpu_s_default_generator_is_seeded_and_put_back_too(gpus, device, index):
    """Defect 1: public code restores the CPU's alone, so that student and target have different masks on a GPU."""
    own, other = gpus[index], gpus[1 - index]
    before = own.get_state(), other.get_state()
    drawn = []
    for _ in range(2):
        with StepRandom(torch.device(device), 1, 2).dropout():
            drawn.append(torch.rand(4, generator=own))
            assert torch.equal(other.get_state(), before[1])
        assert torch.equal(own.get_state(), before[0])
        torch.rand(3, generator=own)
        before = own.get_state(), other.get_state()
    assert torch.equal(*drawn)
    with pytest.raises(ZeroDivisionError), forked_seed(3, torch.device(device)):
        1 // int(0 * torch.rand(1, generator=own))
    assert torch.equal(own.get_state(), before[0])
