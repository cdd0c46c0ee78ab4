"""A perfect sampler, training samples drawn anew, is at the floor of every measure, whatever the shares of classes."""

import math

import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from cmbench.engine import judge
from cmbench.engine.judge import Judge, labels_as_data, real_draw
from cmbench.engine.sample import round_robin_labels
from cmbench.finite import Finite
from cmbench.measures import OF_SAMPLES, better
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")
N, SETS = 300, 5
SHARES = {"balanced": (59, 59), "90:10": (108, 12), "one class": (118, 0)}  # zeros and ones to train on
HELD_OUT = {"balanced": (30, 30), "90:10": (54, 6), "one class": (60, 0)}
# A further figure beside the mean and deviation of 20: the interval of a normal law that holds all with 99 %.
FIGURES = len(SHARES) * len(OF_SAMPLES) * (SETS + 1)
WIDTH = stats.t.ppf(1 - 0.01 / FIGURES / 2, df=19)


def data(shares):
    """Digits zero and one: the first 60 of each may be held out, the others trained on."""
    found, parts = load_digits(), []
    for counts, among in ((SHARES[shares], slice(60, None)), (HELD_OUT[shares], slice(60))):
        index = [i for k in (0, 1) for i in (found.target == k).nonzero()[0][among][: counts[k]]]
        parts += [torch.from_numpy(found.images[index] / 8 - 1).float()[:, None], torch.from_numpy(found.target[index])]
    return Finite(*parts, CPU)


def of_class(x, labels, wanted, seed):
    """Return for each label that is wanted a sample of it, at random from all."""
    generator = StepRandom(CPU, seed, 1).generator("test")
    places = [torch.nonzero(labels == label)[:, 0] for label in range(int(wanted.max()) + 1)]
    return x[[int(places[k][torch.randint(len(places[k]), (1,), generator=generator)]) for k in wanted.tolist()]]


def perfect(on, name, seed, labels):
    """Samples of a perfect sampler; a measure that looks for copies wants what was held out."""
    against_train = OF_SAMPLES[name].against == "train"
    x, own = (on.test, on.test_labels) if against_train else (on.train, on.train_labels)
    return of_class(x, own, labels, seed)


@pytest.mark.parametrize("shares", SHARES)
def test_every_measure_is_within_the_band_of_its_floor(shares):
    """Each set, and the mean of all sets."""
    on = data(shares)
    judged = Judge(on, N)
    floors = judged.floors(OF_SAMPLES)
    assert set(floors) == set(OF_SAMPLES)
    for name, floor in floors.items():
        assert floor.draws == 20
        values = []
        for seed in range(SETS):
            labels = labels_as_data(on, N, seed)
            ((_, value),) = judged.figures([name], perfect(on, name, seed, labels))
            values.append(value)
        for found, sets in ((sum(values) / SETS, SETS), *((value, 1) for value in values)):
            band = WIDTH * floor.spread * math.sqrt(1 / sets + 1 / floor.draws)
            assert abs(found - floor.value) <= band + 1e-9, (name, values, floor)


def test_equal_shares_against_data_of_other_shares_are_not():
    """What a conditional run was measured with: classes in turn."""
    on = data("90:10")
    judged = Judge(on, N)
    floor = judged.floors(["sliced_wasserstein"])["sliced_wasserstein"]
    x = perfect(on, "sliced_wasserstein", 0, round_robin_labels(N, 2))
    ((_, value),) = judged.figures(["sliced_wasserstein"], x)
    assert value > floor.value + 10 * floor.spread


def test_labels_have_the_shares_of_the_data():
    """270 of 300 are zeros, to four deviations of a binomial law."""
    counts = labels_as_data(data("90:10"), N, 3).bincount(minlength=2)
    assert abs(int(counts[0]) - 270) < 4 * math.sqrt(N * 0.9 * 0.1)
    assert labels_as_data(data("one class"), N, 3).eq(0).all()
    assert torch.equal(labels_as_data(data("90:10"), N, 3), labels_as_data(data("90:10"), N, 3))


@pytest.mark.parametrize("shares", ["balanced", "90:10"])
def test_so_is_every_class(shares):
    on = data(shares)
    judged = Judge(on, N)
    names = ["sliced_wasserstein", "energy_distance", "nearest_neighbour"]
    floors, labels = judged.floors_of_classes(names), labels_as_data(on, N, 11)
    for name in names:
        for found, floor in zip(
            judged.of_classes(name, perfect(on, name, 11, labels), labels), floors[name], strict=True
        ):
            assert found.samples == int((labels == found.label).sum())
            assert found.real == HELD_OUT[shares][found.label]
            assert abs(found.value - floor.value) <= WIDTH * floor.spread * math.sqrt(1 + 1 / 20)


def test_a_class_with_too_few_samples_says_why():
    on = data("90:10")
    labels = torch.zeros(N, dtype=torch.int64)
    labels[:3] = 1
    zeros, ones = Judge(on, N).of_classes("recall", perfect(on, "recall", 0, labels), labels)
    assert (zeros.why_not, ones.why_not) == ("", "it needs 4 or more samples, found 3")
    assert ones.value is None


def test_a_set_without_the_method_is_drawn_by_its_batches():
    class Own:
        shape, classes = (2,), 2

        def batch(self, n, random):
            x = torch.randn(n, 2, generator=random.generator("own"))
            return x, (x[:, 0] > 0).long()

        def held_out(self, n):
            return self.batch(n, StepRandom(CPU, 1, 0))[0]

        def train_sample(self, n):
            return self.batch(n, StepRandom(CPU, 2, 0))[0]

    x, labels = real_draw(Own(), 50, 4, 2)
    assert torch.equal(x, Own().batch(50, StepRandom(CPU, 4, 2))[0])
    assert torch.equal(labels, (x[:, 0] > 0).long())
    judged = Judge(Own(), 50)
    assert not judged.has_classes
    assert set(judged.floors(OF_SAMPLES)) == set(OF_SAMPLES)


@pytest.mark.parametrize(("n", "numbers", "draws"), [(2048, 1024, 20), (2049, 2, 5), (10, 1025, 5)])
def test_dear_floors_are_of_fewer_draws(n, numbers, draws, monkeypatch):
    x, labels = torch.zeros(3, numbers), torch.zeros(3)
    on = Judge(Finite(x, labels, x, labels, CPU), n)
    monkeypatch.setattr(judge, "real_draw", lambda data, n, seed, i=0: (torch.full((2, 1), float(i)), None))
    monkeypatch.setattr(Judge, "_measured", lambda self, name, x, real: float(x.mean()))
    floor = on.floors(["sliced_wasserstein"])["sliced_wasserstein"]
    assert (floor.draws, floor.value) == (draws, (draws - 1) / 2)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_nothing_is_better_than_a_perfect_sampler(name):
    """The best that a measure can come to is within the floor; a deviation on the worse side is its edge."""
    floor, way = judge.floor_of([1.0, 2.0, 3.0]), better(OF_SAMPLES[name].key)
    assert (floor.value, floor.spread, floor.draws) == (2.0, 1.0, 3)
    if way == "":
        assert [floor.holds(value, way) for value in (0.9, 1.0, 3.0, 3.1)] == [False, True, True, False]
    else:
        sign = 1 if way == "lower" else -1
        assert all(floor.holds(2 + sign * off, way) for off in (-1e9, -1, 0, 1))
        assert not floor.holds(2 + sign * 1.01, way)
    assert not floor.holds(None, way)
    assert not floor.holds(math.nan, way)
