import math

import pytest
import torch

from cmbench.finite import Finite, as_float
from cmbench.randomness import Part, StepRandom

CPU = torch.device("cpu")


def at(step, seed=0):
    return StepRandom(CPU, seed, step)


def numbered(M=10, **settings):
    """M points whose only coordinate is their index and whose label is the index modulo 3; three more held out."""
    train, test = torch.arange(M).float()[:, None], torch.arange(100, 103).float()[:, None]
    return Finite(train, torch.arange(M) % 3, test, torch.tensor([0, 1, 3]), CPU, **settings)


def drawn(data, n, steps, seed=0):
    return torch.cat([data.batch(n, at(step, seed))[0][:, 0] for step in range(steps)]).tolist()


@pytest.mark.parametrize(("n", "steps"), [(5, 4), (4, 5), (10, 2), (20, 1), (1, 20)])
def test_two_epochs_visit_every_sample_twice(n, steps):
    visits = drawn(numbered(), n, steps)
    assert sorted(visits[:10]) == list(range(10))
    assert sorted(visits[10:]) == list(range(10))
    assert visits[:10] != visits[10:]


def test_a_batch_may_be_longer_than_several_epochs():
    visits = drawn(numbered(), 34, 1)
    assert [sorted(visits[i : i + 10]) for i in (0, 10, 20)] == [list(range(10))] * 3
    assert len(set(visits[30:])) == 4


def test_order_does_not_depend_on_the_size_of_the_batch():
    assert drawn(numbered(), 4, 10) == drawn(numbered(), 8, 5) == drawn(numbered(), 40, 1)


def test_a_batch_is_a_function_of_seed_and_step_alone():
    data = numbered(100)
    x, labels = data.batch(7, at(9))
    torch.manual_seed(1)
    for step in (3, 20):
        data.batch(7, at(step))
    again, same = numbered(100).batch(7, at(9))
    assert torch.equal(x, again)
    assert torch.equal(labels, same)
    assert not torch.equal(x, data.batch(7, at(9, seed=1))[0])
    assert not torch.equal(x, data.batch(7, at(10))[0])


def test_labels_belong_to_their_samples():
    x, labels = numbered().batch(10, at(3))
    assert labels.tolist() == [int(v) % 3 for v in x[:, 0]]
    assert labels.dtype == torch.int64


def test_classes_count_those_of_both_parts():
    assert numbered().classes == 4


def test_held_out_samples_are_never_drawn():
    data = numbered()
    assert data.held_out(2).tolist() == [[100], [101]]
    assert data.held_out(50).tolist() == [[100], [101], [102]]
    assert max(drawn(data, 10, 5)) < 100


def test_train_sample_is_a_fixed_shuffled_part_of_the_training_set():
    data = numbered(50)
    sample = data.train_sample(20)[:, 0].tolist()
    assert sample == numbered(50).train_sample(20)[:, 0].tolist()
    assert len(set(sample)) == 20
    assert sample != sorted(sample)
    assert sorted(data.train_sample(999)[:, 0].tolist()) == list(range(50))


def test_pictures_stay_bytes_and_become_floats_from_minus_one_to_one():
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    data = Finite(pictures, torch.zeros(3), pictures, torch.zeros(3), CPU)
    assert data.train.dtype == torch.uint8
    assert as_float(pictures).flatten().tolist() == pytest.approx([-1, -0.6, 1])
    x, _ = data.batch(3, at(0))
    assert x.dtype == data.held_out(3).dtype == data.train_sample(3).dtype == torch.float32
    assert sorted(x.flatten().tolist()) == pytest.approx([-1, -0.6, 1])


def test_oracle_denoises_towards_the_training_set_and_its_labels():
    oracle = numbered().oracle()
    x, sigma = torch.tensor([[4.3]]), torch.tensor([0.01])
    assert oracle.denoise(x, sigma).item() == 4
    assert oracle.denoise(x, sigma, torch.tensor([2])).item() == 5


def asymmetric(n, flip):
    """n pictures (1, 2, 3), all different, none its own mirror image."""
    pictures = torch.arange(6).view(1, 1, 2, 3) + 6 * torch.arange(n).view(n, 1, 1, 1) / (6 * n) * 200
    pictures = pictures.to(torch.uint8)
    return Finite(pictures, torch.arange(n), pictures, torch.arange(n), CPU, horizontal_flip=flip)


def test_horizontal_flip_mirrors_half_of_the_pictures_left_to_right():
    n = 1000
    flipped, straight = asymmetric(n, flip=True), asymmetric(n, flip=False)
    (x, labels), (y, same) = flipped.batch(n, at(0)), straight.batch(n, at(0))
    assert torch.equal(labels, same)
    mirrored = (x == y.flip(-1)).flatten(1).all(dim=1)
    untouched = (x == y).flatten(1).all(dim=1)
    assert (mirrored ^ untouched).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))
    assert torch.equal(x, flipped.batch(n, at(0))[0])
    assert not torch.equal(mirrored, (flipped.batch(n, at(1))[0] == straight.batch(n, at(1))[0]).flatten(1).all(dim=1))


@pytest.mark.parametrize("flip", [False, True])
def test_a_part_is_the_rows_of_the_batch_and_moves_no_more(flip):
    data, seen = asymmetric(20, flip), []
    x, labels = data.batch(13, at(4))

    class Watched:
        device = CPU

        def __len__(self):
            return 20

        def __getitem__(self, index):
            seen.append(len(index))
            return pictures[index]

    pictures, data.train = data.train, Watched()
    for part in (Part(0, 5, 13), Part(5, 13, 13)):
        own, same = data.batch(13, StepRandom(CPU, 0, 4, part=part))
        assert torch.equal(own, x[part.rows])
        assert torch.equal(same, labels[part.rows])
    assert seen == [5, 8]


def test_held_out_pictures_are_not_flipped():
    data = asymmetric(20, flip=True)
    assert torch.equal(data.held_out(20), as_float(data.test))
