import pytest
import torch
from sklearn.datasets import load_digits

from cmbench.data.digits import Config, Data
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return Data(Config(), CPU)


@pytest.fixture(scope="module")
def original():
    return load_digits()


def grey(pictures):
    """Bytes back to the sixteen grey levels that the data set counts."""
    return (pictures.double() * 16 / 255).round().long().flatten(1)


def test_pictures_are_bytes_of_8_by_8_pixels(digits):
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10
    assert digits.train.dtype == digits.test.dtype == torch.uint8
    assert (digits.train.min(), digits.train.max()) == (0, 255)


def test_the_two_parts_are_the_data_set_without_overlap(digits, original):
    parts = torch.cat([grey(digits.train), grey(digits.test)])
    labels = torch.cat([digits.train_labels, digits.test_labels])
    rows = sorted([*row, label] for row, label in zip(parts.tolist(), labels.tolist(), strict=True))
    pixels = original.images.reshape(-1, 64).astype(int).tolist()
    assert rows == sorted([*row, label] for row, label in zip(pixels, original.target.tolist(), strict=True))
    train, test = ({tuple(row) for row in grey(part).tolist()} for part in (digits.train, digits.test))
    assert not train & test


def test_a_fifth_of_every_class_is_held_out(digits):
    held_out, all_of_it = digits.test_labels.bincount(), digits.test_labels.bincount() + digits.train_labels.bincount()
    assert len(digits.test) == 360
    assert ((held_out - 0.2 * all_of_it).abs() < 1).all()


def test_split_never_changes(digits):
    assert torch.equal(digits.test, Data(Config(), CPU).test)


def test_batches_lie_between_minus_one_and_one_and_carry_their_digit(digits, original):
    x, labels = digits.batch(500, StepRandom(CPU, 0, 1))
    assert x.shape == (500, 1, 8, 8)
    assert x.dtype == torch.float32
    assert (x.min().item(), x.max().item()) == (-1, 1)
    known = {
        tuple(p): t for p, t in zip(original.images.reshape(-1, 64).astype(int).tolist(), original.target, strict=True)
    }
    rows = ((x.double() + 1) * 8).round().long().flatten(1).tolist()
    assert [known[tuple(row)] for row in rows] == labels.tolist()
