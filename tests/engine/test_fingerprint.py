"""What tells data from others, what is refused of a class of one's own, what a run warns of."""

from types import SimpleNamespace

import pytest
import torch
from fake_runs import read_rows

from cmbench import consent
from cmbench.data import mixtures
from cmbench.engine import fingerprint, runner, trainer
from cmbench.errors import UsageError
from cmbench.finite import Finite
from cmbench.rundir import fingerprints
from cmbench.rundir.files import read_json

pytestmark = pytest.mark.usefixtures("put_back")
CPU = torch.device("cpu")
OWN = '''
import torch
from cmbench.config import Config as Base

class Config(Base):
    """Of the class here."""

class Data:
    shape, classes = {shape}, 2
    def __init__(self, config, device):
        self.device = device
    def _draw(self, n, seed):
        return {scale} * torch.rand(n, *self.shape, generator=torch.Generator().manual_seed(seed)) + {shift}
    def batch(self, n, random):
        x = self._draw(n, random.step)
        return {batch}
    def held_out(self, n):
        return self._draw(n, -1)
    def train_sample(self, n):
        return self._draw(n, -2)
'''
SOUND = {"shape": (2,), "scale": 2, "shift": -1, "batch": "x, torch.arange(n) % 2"}


@pytest.fixture
def own(home, monkeypatch):
    """Write a class of one's own with some of its parts changed, and return its override."""
    monkeypatch.syspath_prepend(str(home))

    def write(**parts: object) -> str:
        (home / "own_data.py").write_text(OWN.format(**{**SOUND, **parts}))
        return "data={kind='own_data:Data'}"

    return write


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ("x.double(), torch.arange(n) % 2", r"returns x_0 \[4, 2\] float64, allowed: \[4, 2\] float32"),
        ("(x > 0).to(torch.uint8), torch.arange(n) % 2", r"x_0 \[4, 2\] uint8, .*; bytes become x / 127.5 - 1"),
        ("x[:, :1], torch.arange(n) % 2", r"x_0 \[4, 1\] float32, allowed: \[4, 2\]"),
        ("x.numpy(), torch.arange(n) % 2", r"x_0 of type ndarray, allowed: a tensor"),
        ("x / 0, torch.arange(n) % 2", "x_0 that is not finite"),
        ("x, torch.arange(n)", "labels are 0 to 3, allowed: 0 to 1"),
        ("x, torch.arange(n) / 1", r"labels \[4\] torch.float32, allowed: \[n\] int64"),
        ("x, None", "labels NoneType"),
        ("x.nothing", "batch fails with AttributeError: .*nothing"),
        ("x", "batch fails with ValueError"),
    ],
)
def test_a_class_of_ones_own_that_training_cannot_take(home, own, batch, why):
    with pytest.raises(UsageError, match=rf"data.kind: found 'own_data:Data', whose .*{why}") as caught:
        trainer.from_file(home / "tiny.toml", [own(batch=batch)])
    assert "\n" not in str(caught.value)


ODD = {
    "sound": ({}, []),
    "all the same": ({"scale": 0}, ["all of 1,024 training samples looked at are the same"]),
    "almost": ({"scale": 0.01, "shift": "(-0.5, 0.5)"}, ["almost the same: they differ by 0.0029"]),
    "wide": ({"scale": 10}, ["the standard deviation is 2.8", "far from path.sigma_data = 0.5"]),
    "narrow": ({"scale": 0.5}, ["the standard deviation is 0.14"]),
    "pictures from 0 to 1": (
        {"shape": (1, 8, 8), "scale": 1, "shift": 0},
        ["pictures have values from", "show -1 to 1"],
    ),
    "pictures from 0 to 15": ({"shape": (1, 8, 8), "scale": 15, "shift": 0}, ["to 15; snapshots show -1 to 1"]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_are_warned_of_in_the_journal(home, own, name):
    parts, lines = ODD[name]
    shift = parts.get("shift")
    parts = {**parts, "shift": f"torch.tensor({shift})"} if isinstance(shift, str) else parts
    network = ["network={kind='unet', width=8, depth=1, multipliers=[1]}"] if "shape" in parts else []
    made = runner.create(
        consent.named(home / "tiny.toml", [own(**parts), "train.steps=1", "evaluate.every=0", *network]),
        None,
        ["cmbench"],
    )
    list(made.records())
    warned = " ".join(row["text"] for row in read_rows(made.run.events) if row["kind"] == "warning")
    assert all(line in warned for line in lines), warned
    assert bool(warned) == bool(lines)


def test_a_fingerprint_of_ones_own_data_follows_from_their_samples(home, own):
    recipe = trainer.from_file(home / "tiny.toml", [own()]).recipe

    def of(**parts: object) -> dict:
        data = trainer.build.data(recipe, CPU)
        for key, value in parts.items():
            setattr(data, key, value)
        return fingerprint.of(recipe, data)

    assert of() == of()
    other = of(held_out=lambda n: torch.zeros(n, 2))
    assert fingerprints.difference(of(), other) == "they are as many as before, of other content"
    assert of(content="mine")["content"] == "mine"
    assert fingerprints.difference(of(), of(classes=3)) == "they had 2 classes, and have 3"


def test_a_class_that_shows_no_samples_has_no_content(home, own):
    recipe = trainer.from_file(home / "tiny.toml", [own()]).recipe
    data = trainer.build.data(recipe, CPU)
    data.train_sample = None
    assert fingerprint.of(recipe, data)["content"] == ""
    assert fingerprint.oddities(recipe, data) == []


def test_a_look_at_data_draws_from_no_generator_that_training_uses(home, own):
    override = own(batch="torch.randn(n, 2), torch.arange(n) % 2")
    state = torch.random.get_rng_state()
    trainer.from_file(home / "tiny.toml", [override]).fingerprint  # noqa: B018
    assert torch.equal(torch.random.get_rng_state(), state)


def test_data_that_follow_from_the_recipe_say_so(home, trained):
    found = read_json(trained.meta)["data"]
    assert found == {"count": None, "held_out": None, "shape": [2], "classes": 8, "content": "recipe"}
    assert (
        fingerprints.recorded(trained)
        == fingerprints.recorded(trained, 12)
        == {key: value for key, value in found.items() if value is not None}
    )


def test_a_damaged_fingerprint_is_unknown():
    found = {"count": -1, "held_out": "x", "shape": [1, "a"], "classes": [3], "names": "cat", "content": 5, "more": 1}
    assert fingerprints.sound_parts(found) == {}
    assert fingerprints.difference({}, {"classes": 3, "content": "files1:a"}) == ""


def test_contents_found_by_other_methods_are_not_compared():
    assert fingerprints.differs("files1:a", "files1:b")
    assert not fingerprints.differs("files1:a", "files2:b")
    assert not fingerprints.differs("", "files1:b")


def test_endless_and_finite_sets_of_the_package_are_not_odd():
    recipe = SimpleNamespace(data={"kind": "x"}, path=SimpleNamespace(sigma_data=0.5))
    assert fingerprint.oddities(recipe, mixtures.Data(mixtures.Config(), CPU)) == []
    white = torch.full((9, 3, 4, 4), 255, dtype=torch.uint8)
    data = Finite(white[1:], torch.zeros(8), white[:1], torch.zeros(1), CPU)
    assert fingerprint.oddities(recipe, data) == ["data: all of 8 training samples looked at are the same"]
