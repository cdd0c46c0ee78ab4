"""Figures as papers print them: reference statistics, Inception's weights, minima, several weights in one command."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.engine import build
from cmbench.engine.asking import Place
from cmbench.engine.evaluate import Evaluation
from cmbench.engine.reference import read
from cmbench.features import inception

ASK = ["-n", "80", "--repeats", "3", "--steps", "1"]


def said(outcome) -> list[dict]:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["runs"]


@pytest.fixture
def pixels(cmbench, digits, home) -> Path:
    made = cmbench("reference", digits.recipe, "--features", "pixels", "--out", "pixels.npz")
    assert made.code == 0, made.err
    return home / "pixels.npz"


def test_a_reference_is_mean_and_covariance_of_the_training_data(cmbench, digits, pixels):
    data = build.data(build.of_run(digits), torch.device("cpu"))
    x = data.train_sample(10**6).flatten(1).double().numpy()
    with np.load(pixels) as file:
        np.testing.assert_allclose(file["mu"], x.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(x, rowvar=False), atol=1e-12)
        assert (file["n"].tolist(), file["shape"].tolist()) == ([len(x)], [1, 8, 8])
        assert file["channels"] == pytest.approx(x.mean())
    few = cmbench("reference", digits.recipe, "--features", "pixels", "--out", "few.npz", "-n", 64)
    assert few.out == "few.npz: pixels of 64 samples, 64 dimensions\n"
    assert few.err.splitlines()[-1].startswith("cmbench: too few samples: of 64 the covariance has not full rank")


def test_a_file_is_taken_whole(cmbench, home):
    """Held-out samples too: they are held out for training alone."""
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    np.save(home / "x.npy", x)
    assert cmbench("reference", "x.npy", "--features", "pixels", "--out", "x.npz").code == 0
    flat = (x / 127.5 - 1).transpose(0, 3, 1, 2).reshape(60, -1)
    with np.load(home / "x.npz") as file:
        np.testing.assert_allclose(file["mu"], flat.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(file["sigma"], np.cov(flat, rowvar=False), atol=1e-6)
        np.testing.assert_allclose(file["channels"], (x / 127.5 - 1).mean(axis=(0, 1, 2)), atol=1e-6)


def test_samples_are_compared_with_the_reference_alone(cmbench, digits, pixels, home):
    """As torch-fidelity does, on the same samples; EDM's files have no more than mu and sigma."""
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    with np.load(pixels) as file:
        theirs = {"mu": file["mu"], "sigma": file["sigma"]}
    np.savez(home / "edm.npz", **theirs)
    (run,) = said(cmbench("eval", *ASK, "--reference", "edm.npz", "--json"))
    (figure,) = run["figures"]
    assert (figure["metric"], figure["floor"], figure["steps"]) == ("frechet_distance", None, 1)
    x, _ = Evaluation(Place(digits, 2, "0.9", "cpu"))._samples(80, 1, 0)
    own = fid.fid_features_to_statistics(x.flatten(1).double())
    expected = fid.fid_statistics_to_metric(own, theirs, False)[fid.KEY_METRIC_FID]
    assert figure["values"][0] == pytest.approx(expected, rel=1e-6)
    (again,) = said(cmbench("eval", *ASK, "--reference", "edm.npz", "--json"))
    assert again["figures"][0]["cached"]
    np.savez(home / "edm.npz", mu=theirs["mu"] + 1, sigma=theirs["sigma"])
    (other,) = said(cmbench("eval", *ASK, "--reference", "edm.npz", "--json"))
    assert not other["figures"][0]["cached"]
    assert other["figures"][0]["value"] != figure["value"]


def test_the_minimum_is_printed_and_what_is_wrong_is_said(cmbench, digits, pixels):
    ask = ["eval", *ASK, "--reference", pixels, "--markdown", "page.md"]
    (run,) = said(cmbench(*ask, "--json"))
    values = run["figures"][0]["values"]
    for shown in (cmbench(*ask).out, cmbench("eval", *ASK[:1], "60", *ASK[2:], "--reference", pixels).out):
        head, row = (line.split() for line in shown.splitlines()[1:3])
        assert head == ["metric", "steps", "value", "spread", "lowest", "floor", "better"]
        assert "biased upwards by the number of samples: " in shown
    assert "too few samples: of 60, their covariance has not full rank in 64 dimensions" in shown
    assert row[0] == "frechet_distance"
    assert f"lowest {min(values):.4g} |" in Path("page.md").read_text()
    plain = cmbench("eval", *ASK, "--measures", "frechet_distance").out
    assert "lowest" not in plain
    assert "biased" not in plain


def test_several_weights_are_measured_by_one_command(cmbench, trained):
    ask = ["eval", "-n", "8", "--repeats", "2", "--steps", "1", "--measures", "sliced_wasserstein"]
    runs = said(cmbench(*ask, "--checkpoint", "10,latest,12", "--ema", "0.5,none", "--json", "--markdown", "x.md"))
    pairs = [(10, "0.5"), (10, "none"), (12, "0.5"), (12, "none")]
    assert [(run["checkpoint"], run["ema"]) for run in runs] == pairs
    page = Path("x.md").read_text()
    assert all(f"| `tiny`, checkpoint {step}, ema {ema} | 1 |" in page for step, ema in pairs)
    assert [run["ema"] for run in said(cmbench(*ask, "--ema", "all", "--json"))] == ["0.9", "0.5", "none"]
    for wrong, code, says in (
        (["--checkpoint", "10,11"], 4, "no checkpoint at step 11"),
        (["--checkpoint", "10,"], 2, "--checkpoint: found"),
        (["--ema", "0.5,0.7"], 2, "--ema: found '0.7', allowed: 0.9, 0.5, none"),
        (["--ema", ","], 2, "--ema: found ',', allowed: values with commas between them"),
        (["--ema", "0.5,"], 2, "--ema: found '0.5,', allowed: values with commas between them"),
        (["--checkpoint", "latest,,best"], 2, "--checkpoint: found 'latest,,best', allowed: values with commas"),
    ):
        refused = cmbench(*ask, *wrong)
        assert (refused.code, refused.out, refused.err.count("\n")) == (code, "", 1)
        assert says in refused.err


EYE = np.eye(64)


def damaged(path: Path) -> None:
    """Write statistics of which one bit of the mean is wrong."""
    np.savez(path, mu=EYE[0], sigma=EYE)
    content = bytearray(path.read_bytes())
    content[content.index(EYE[0].tobytes()) + 100] ^= 1
    path.write_bytes(content)


REFUSED = {
    "x.pkl": (lambda path: path.write_bytes(pickle.dumps({"fid": {}})), "a pickle, which may run code; allowed: .npz"),
    "pickle.npz": (lambda path: path.write_bytes(pickle.dumps({})), "a pickle, which may run code"),
    "x.npy": (lambda path: np.save(path, EYE), "allowed: .npz with mu and sigma"),
    "missing.npz": (lambda path: None, "No such file"),
    "text.npz": (lambda path: path.write_text("no zip"), "cannot be read"),
    "others.npz": (lambda path: np.savez(path, a=EYE, mu=EYE[0]), "found 'a', 'mu', allowed: mu and sigma (sigma miss"),
    "shapes.npz": (lambda path: np.savez(path, mu=EYE, sigma=EYE), "found mu [64, 64], sigma [64, 64], allowed: (d,)"),
    "nan.npz": (lambda path: np.savez(path, mu=EYE[0] * np.nan, sigma=EYE), "holds what is no finite number"),
    "skew.npz": (lambda path: np.savez(path, mu=EYE[0], sigma=np.triu(np.ones((64, 64)))), "sigma is not symmetric"),
    "negative.npz": (lambda path: np.savez(path, mu=EYE[0], sigma=-EYE), "a variance below 0"),
    "beyond.npz": (lambda path: np.savez(path, mu=EYE[0], sigma=2 - EYE), "a correlation beyond 1"),
    "damaged.npz": (lambda path: damaged(path), "damaged at 'mu.npy': its checksum is another"),
    "larger.npz": (
        lambda path: np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048)),
        "found mu of 2,048 dimensions, allowed: 64, as the features",
    ),
    "other.npz": (
        lambda path: np.savez(path, mu=EYE[0], sigma=EYE, features=["inception"]),
        "made of features 'inception', asked for 'pixels'",
    ),
    "objects.npz": (
        lambda path: np.savez(path, mu=EYE[0], sigma=np.array([[None]]), allow_pickle=True),
        "objects, which are pickled and may run code",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reference_that_is_none_is_refused_in_one_line(cmbench, digits, home, name):
    make, says = REFUSED[name]
    make(home / name)
    refused = cmbench("eval", *ASK, "--reference", name)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err
    assert refused.err.startswith("cmbench: --reference: ")
    assert name in refused.err
    assert says in refused.err
    assert not digits.evaluations.exists()


def test_what_a_reference_says_of_itself_may_be_no_number(cmbench, digits, home):
    about = {"n": [np.nan], "shape": [np.inf, 1e300], "channels": [-np.inf]}
    np.savez("x.npz", mu=EYE[0], sigma=EYE, **about)
    found = cmbench("eval", *ASK, "--reference", "x.npz")
    assert (found.code, found.err) == (0, "")


def test_weights_of_another_hash_are_refused_and_no_code_of_a_file_is_run(cmbench, digits, home):
    torch.save({"a": torch.ones(3)}, home / "other.pth")
    (home / "code.pth").write_bytes(pickle.dumps(print))
    digest = hashlib.sha256((home / "other.pth").read_bytes()).hexdigest()
    ask = ["eval", *ASK, "--features", "inception", "--inception-weights"]
    for given, says in (
        ([*ask, "other.pth"], f"--inception-weights: other.pth: found SHA-256 {digest[:12]}…, allowed: 6726825d0af5…"),
        ([*ask, "missing.pth"], "missing.pth: cannot be read: No such file"),
        ([*ask, "code.pth", "--any-weights"], "code.pth: "),
        (["eval", *ASK, "--inception-weights", "other.pth"], "--inception-weights: found one, allowed only with"),
    ):
        refused = cmbench(*given)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err
        assert says in refused.err
    pytest.importorskip("torch_fidelity")
    refused = cmbench(*ask, "other.pth", "--any-weights")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "found tensors of other names or shapes than Inception has" in refused.err
    assert not digits.evaluations.exists()


@pytest.fixture
def weights(home, monkeypatch) -> Path:
    """A file of random weights, spread so that features differ between pictures."""
    package = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *_, **__: {})
    network = package.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda self, tensors: None)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = network("inception-v3-compat", ["2048"]).state_dict()
    tensors = {name: x * 1.5 if name.endswith("conv.weight") else x for name, x in made.items()}
    torch.save(tensors, home / "random.pth")
    return home / "random.pth"


@pytest.mark.long
def test_inception_by_a_file_is_torch_fidelity_s(cmbench, digits, home, weights):
    """The same features and the same number, also of a kept answer; other weights are another question."""
    from torch_fidelity import feature_extractor_inceptionv3 as package
    from torch_fidelity import metric_fid as fid

    ask = ["--features", "inception", "--inception-weights", weights, "--any-weights"]
    assert cmbench("reference", digits.recipe, *ask, "-n", 12, "--out", "r.npz").code == 0
    (run,) = said(cmbench("eval", "-n", "6", "--repeats", "2", "--steps", "1", *ask, "--reference", "r.npz", "--json"))
    evaluation = Evaluation(Place(digits, 2, "0.9", "cpu"))
    x, _ = evaluation._samples(6, 1, 0)
    theirs = package.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))
    levels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    features = theirs(levels)[0]
    own = inception.Inception((1, 8, 8), torch.device("cpu"), weights, any_weights=True)(x)
    assert torch.equal(own, features)
    real = read(home / "r.npz", f"inception {hashlib.sha256(weights.read_bytes()).hexdigest()}")
    statistics = {"mu": real.mu.numpy(), "sigma": real.sigma.numpy()}
    expected = fid.fid_statistics_to_metric(fid.fid_features_to_statistics(features.double()), statistics, False)
    value = run["figures"][0]["values"][0]
    assert value == pytest.approx(expected[fid.KEY_METRIC_FID], rel=1e-6)
    assert [note.partition(":")[0] for note in run["figures"][0]["notes"]][:2] == [
        "too few samples",
        "too few real samples",
    ]
