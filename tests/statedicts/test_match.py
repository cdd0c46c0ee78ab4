"""Which of a file's tensors are a network's: under any prefix, in any table, and nothing left over unseen."""

import pytest
import saved
import torch

from cmbench.errors import UsageError
from cmbench.statedicts import files, names
from cmbench.statedicts.match import match, refuse_misfits


def found(path, value, weights="", kind="mlp", expected=None, constants=()):
    saved.save(path, value)
    with files.opened(path) as file:
        return match(file, expected or saved.SHAPES, kind, weights, constants)


def prefixed(prefix: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in saved.weights(seed).items()}


def assert_whole(match_, prefix: str) -> None:
    assert {name: entry.name for name, entry in match_.pairs.items()} == {n: prefix + n for n in saved.SHAPES}
    assert (match_.missing, match_.reshaped, match_.unexpected) == ([], {}, [])
    refuse_misfits(match_, "x.pt")


PREFIXES = ["", "model.", "module.", "_orig_mod.", "unet.", "module.model.", "module._orig_mod.net.unet.", "F_theta."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_found(tmp_path, prefix):
    assert_whole(found(tmp_path / "x.pt", prefixed(prefix)), prefix)


@pytest.mark.parametrize("wrapper", sorted(names.WRAPPERS))
def test_wrappers_may_stand_anywhere(tmp_path, wrapper):
    value = {name.replace("inner.", f"inner.{wrapper}."): tensor for name, tensor in prefixed("model.").items()}
    whole = found(tmp_path / "x.pt", value)
    assert whole.pairs.keys() == saved.SHAPES.keys()
    assert whole.unexpected == []


def test_a_network_whose_own_names_have_a_wrappers_part(tmp_path):
    expected = {f"module.{name}": shape for name, shape in saved.SHAPES.items()}
    assert found(tmp_path / "x.pt", prefixed("module."), expected=expected).missing == []
    assert found(tmp_path / "y.pt", prefixed(""), expected=expected).missing == []


def test_a_file_may_lack_the_part_with_which_all_names_begin(tmp_path):
    expected = {f"unet.{name}": shape for name, shape in saved.SHAPES.items()}
    whole = found(tmp_path / "x.pt", prefixed(""), expected=expected)
    assert {name: entry.name for name, entry in whole.pairs.items()} == {f"unet.{n}": n for n in saved.SHAPES}


NESTED = {
    "one table": ({"state_dict": prefixed("")}, "", "state_dict."),
    "beside an optimiser": (
        {"net": prefixed("model."), "optimizer": {"state": {0: prefixed("")}}},
        "net",
        "net.model.",
    ),
    "ema": ({"ema": prefixed(""), "net": prefixed("", 1), "step": 5}, "ema", "ema."),
    "FastGen": ({"model": {"net": prefixed("model."), "ema": prefixed("model.", 1)}}, "ema", "model.ema.model."),
    "one of several lengths": ({"ema": {"emas": [prefixed(""), prefixed("", 1)]}}, "emas.1", "ema.emas.1."),
    "one table of prefixes": ({"state_dict": {**prefixed("model."), **prefixed("ema.", 1)}}, "ema", "state_dict.ema."),
}


@pytest.mark.parametrize("case", NESTED)
def test_a_key_says_which_of_several_state_dicts_is_meant(tmp_path, case):
    value, weights, prefix = NESTED[case]
    assert_whole(found(tmp_path / "x.pt", value, weights), prefix)


@pytest.mark.parametrize("case", ["ema", "FastGen", "one of several lengths", "one table of prefixes"])
def test_without_it_the_choices_are_named(tmp_path, case):
    value, _, prefix = NESTED[case]
    with pytest.raises(UsageError, match="found several state dicts for this network; allowed for weights: ") as told:
        found(tmp_path / "x.pt", value)
    assert prefix.rstrip(".") in str(told.value)
    assert "\n" not in str(told.value)


def test_a_name_of_none_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"weights: found 'emma', allowed: ema, net; did you mean 'ema'\?"):
        found(tmp_path / "x.pt", {"ema": prefixed(""), "net": prefixed("")}, "emma")
    with pytest.raises(UsageError, match="weights: found 'ema', allowed: none: the file has one state dict"):
        found(tmp_path / "y.pt", prefixed(""), "ema")


def test_an_average_with_less_is_still_a_choice(tmp_path):
    """Raw weights with a buffer more must not be taken for the only ones."""
    few = dict(list(prefixed("ema.").items())[1:])
    with pytest.raises(UsageError, match="allowed for weights: net, ema"):
        found(tmp_path / "x.pt", {**prefixed("net."), **few})


def test_what_is_left_over_is_told_apart(tmp_path):
    value = {"net": {**prefixed("unet."), "logvar.weight": torch.ones(2)}, "optimizer": prefixed("x.")}
    del value["net"]["unet.inner.2.bias"]
    value["net"]["unet.inner.0.weight"] = torch.ones(4, 3)
    whole = found(tmp_path / "x.pt", value, "net")
    assert whole.missing == ["inner.2.bias"]
    assert whole.reshaped == {"inner.0.weight": ((4, 3), (4, 2))}
    assert whole.unexpected == ["net.logvar.weight"]
    assert whole.aside == {"optimizer": 4}


MISFITS = {
    "missing": (
        lambda v: v.pop("inner.2.bias"),
        {},
        "1 missing (inner.2.bias); allowed: all of them, or allow_missing",
    ),
    "unexpected": (
        lambda v: v.update(more=torch.ones(1)),
        {},
        "1 unexpected (more); allowed: all of them, or allow_unexpected",
    ),
    "shape": (
        lambda v: v.update({"inner.0.bias": torch.ones(5)}),
        {"allow_missing": ["*"], "allow_unexpected": ["*"]},
        "1 of another shape (inner.0.bias [5] there, [4] here); allowed: all of them",
    ),
    "other pattern": (lambda v: v.pop("inner.2.bias"), {"allow_missing": ["outer*"]}, "1 missing (inner.2.bias)"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_in_a_line(tmp_path, case):
    change, allowed, says = MISFITS[case]
    value = saved.weights()
    change(value)
    with pytest.raises(UsageError) as told:
        refuse_misfits(found(tmp_path / "x.pt", value), "x.pt", **allowed)
    assert says in str(told.value)
    assert str(told.value).startswith("x.pt: its tensors do not fit the network: ")


@pytest.mark.parametrize("pattern", ["inner.2.bias", "inner.2.*", "*bias"])
def test_patterns_allow(tmp_path, pattern):
    value = {**saved.weights(), "more": torch.ones(1)}
    del value["inner.2.bias"]
    refuse_misfits(found(tmp_path / "x.pt", value), "x.pt", [pattern], ["m*"])


def test_a_state_dict_of_another_network_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"of another network: it has 'conv.weight' and the like, this one has 'inner"):
        found(tmp_path / "x.pt", {"conv.weight": torch.ones(2)})


@pytest.mark.parametrize("n", [3, 400])
def test_a_message_stays_short(tmp_path, n):
    value = {**saved.weights(), **{f"{'long_' * 60}{i}": torch.ones(1) for i in range(n)}}
    with pytest.raises(UsageError) as told:
        refuse_misfits(found(tmp_path / "x.pt", value), "x.pt")
    assert f"{n} unexpected" in str(told.value)
    assert len(str(told.value)) < 400


@pytest.fixture
def renames(monkeypatch):
    """A kind of network whose published names differ."""
    rules = (r"enc\.", "inner."), (r"head\.bias$", "inner.2.bias"), (r"filter$", "kernel")
    monkeypatch.setitem(names.RENAMES, "own", rules)


def test_published_names_are_renamed_by_the_table(tmp_path, renames):
    value = {name.replace("inner.", "enc."): tensor for name, tensor in prefixed("model.").items()}
    value["model.head.bias"] = value.pop("model.enc.2.bias")
    value["model.enc.filter"] = torch.ones(1)
    whole = found(tmp_path / "x.pt", value, kind="own", constants={"inner.kernel", "inner.more"})
    assert whole.pairs["inner.2.bias"].name == "model.head.bias"
    assert whole.pairs.keys() == saved.SHAPES.keys()
    assert whole.unexpected == []
    assert [(name, entry.name) for name, entry in whole.constants] == [("inner.kernel", "model.enc.filter")]
    assert found(tmp_path / "x.pt", value, kind="own").unexpected == ["model.enc.filter"]
    assert_whole(found(tmp_path / "y.pt", prefixed("model."), kind="own"), "model.")
    with pytest.raises(UsageError, match="of another network"):
        found(tmp_path / "x.pt", {"enc.0.w": torch.ones(1)}, kind="mlp")


EDM = {  # published name, ours, and whether it is a constant
    "map_noise.freqs": ("time.frequencies", False),
    "enc.8x8_down.conv0.resample_filter": ("enc.8x8_down.resample.kernel", True),
    "enc.8x8_down.skip.resample_filter": ("enc.8x8_down.resample.kernel", True),
    "enc.8x8_aux_down.resample_filter": ("enc.8x8_aux_skip.resample.kernel", True),
    "enc.8x8_aux_residual.resample_filter": ("enc.8x8_aux_residual.resample.kernel", True),
    "enc.8x8_aux_residual.weight": ("enc.8x8_aux_residual.weight", False),
    "map_layer0.weight": ("map_layer0.weight", False),
}


@pytest.mark.parametrize("fourier", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.", "ema.model."])
def test_edms_names_are_ours(tmp_path, prefix, fourier):
    """Two layers of a block share a filter, which is one constant of ours. It alone may need the table."""
    names = {name: own for name, own in EDM.items() if fourier or name != "map_noise.freqs"}
    value = {prefix + name: torch.ones(2) for name in names}
    expected = {ours: (2,) for ours, constant in names.values() if not constant}
    built = {ours for ours, constant in names.values() if constant}
    whole = found(tmp_path / "x.pt", value, kind="ncsnpp", expected=expected, constants=built)
    assert (whole.missing, whole.unexpected, whole.weights) == ([], [], prefix.rstrip("."))
    told = {entry.name.removeprefix(prefix): name for name, entry in [*whole.pairs.items(), *whole.constants]}
    told |= {entry.name.removeprefix(prefix): name for name, entry in whole.constants}
    assert told == {name: ours for name, (ours, _) in names.items()}


@pytest.mark.parametrize("prefix", ["", "unet.", "net.unet.", "ema."])
def test_edm2s_unet_may_stand_alone(tmp_path, prefix):
    names = ["enc.8x8_conv.weight", "dec.8x8_up.emb_gain", "emb_noise.weight", "emb_fourier.freqs", "out_gain"]
    expected = {f"unet.{name}": (2,) for name in names} | {"logvar_linear.weight": (2,)}
    whole = found(tmp_path / "x.pt", {prefix + n: torch.ones(2) for n in names}, kind="edm2", expected=expected)
    assert {name: entry.name for name, entry in whole.pairs.items()} == {f"unet.{n}": prefix + n for n in names}
    assert whole.missing == ["logvar_linear.weight"]
