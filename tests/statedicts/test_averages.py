"""Averages in a list without names: taken in the order of the state dict beside them, or refused in a line."""

import pytest
import saved
import torch
from torch import nn

from cmbench.errors import UsageError
from cmbench.statedicts import files
from cmbench.statedicts.match import match

RAW, EMA = saved.weights(0), saved.weights(1)


def found(path, value, weights="", ordered=False, expected=None, buffers=()):
    saved.save(path, value)
    with files.opened(path) as file:
        whole = match(file, expected or saved.SHAPES, "mlp", weights, (), buffers, ordered)
        return whole, {name: entry.read().clone() for name, entry in whole.pairs.items()}


def assert_are(tensors, wanted):
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in wanted.items())


def torch_ema(values, **more):
    return {"decay": 0.999, "num_updates": 10, "shadow_params": [*values], "collected_params": None, **more}


LAYOUTS = {
    "torch_ema": lambda: {"model": RAW, "ema": torch_ema(EMA.values()), "step": 5},
    "a tuple": lambda: {"model": RAW, "ema": torch_ema(EMA.values(), shadow_params=tuple(EMA.values()))},
    "prefixes": lambda: {"m": {f"module.a.{n}": t for n, t in RAW.items()}, "ema": torch_ema(EMA.values())},
    "parameters": lambda: {"model": RAW, "ema_params": [nn.Parameter(t) for t in EMA.values()]},
    "beside the optimiser": lambda: {"model": RAW, "shadow": [*EMA.values()], "optimizer": {"m": [torch.ones(3)] * 9}},
    "averages first": lambda: {"ema": torch_ema(EMA.values()), "model": RAW},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_averages_in_a_list_are_taken_and_named(tmp_path, layout):
    whole, tensors = found(tmp_path / "x.pt", LAYOUTS[layout]())
    assert_are(tensors, EMA)
    assert whole.missing == whole.unexpected == []
    assert "ema" in whole.weights or "shadow" in whole.weights


@pytest.mark.parametrize("weights", ["model", "ema", "shadow_params", "ema.shadow_params"])
def test_the_key_chooses(tmp_path, weights):
    _, tensors = found(tmp_path / "x.pt", LAYOUTS["torch_ema"](), weights)
    assert_are(tensors, RAW if weights == "model" else EMA)


def test_the_order_is_that_of_the_state_dict_beside_it_not_ours(tmp_path):
    """Other code may register its layers in another order; two biases of one shape would then be swapped in silence."""
    expected = {"a.bias": (4,), "b.bias": (4,)}
    raw = {"b.bias": torch.zeros(4), "a.bias": torch.ones(4)}
    _, tensors = found(
        tmp_path / "x.pt",
        {"net": raw, "ema": torch_ema([torch.full((4,), 2.0), torch.full((4,), 3.0)])},
        expected=expected,
    )
    assert_are(tensors, {"a.bias": torch.full((4,), 3.0), "b.bias": torch.full((4,), 2.0)})


def test_buffers_are_not_among_the_parameters(tmp_path):
    raw = {"time.frequencies": torch.ones(4), **RAW}
    expected = {"time.frequencies": (4,), **saved.SHAPES}
    whole, tensors = found(
        tmp_path / "x.pt", {"m": raw, "ema": torch_ema(EMA.values())}, expected=expected, buffers={"time.frequencies"}
    )
    assert_are(tensors, EMA)
    assert whole.missing == ["time.frequencies"]


MISFITS = {
    "one too few": (lambda: torch_ema([*EMA.values()][1:]), "3 tensors without names, where the weights are 4"),
    "another shape": (lambda: torch_ema([*EMA.values()][::-1]), "whose tensor 0 has shape [2], where the weights have"),
    "none": (lambda: torch_ema([torch.ones(7)]), "1 tensors without names, where the weights are 4"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_averages_that_do_not_fit_are_refused_and_never_the_raw_weights(tmp_path, case):
    make, says = MISFITS[case]
    value = {"model": RAW, "ema": make()}
    for weights in ("", "ema", "shadow_params"):
        with pytest.raises(UsageError) as told:
            found(tmp_path / "x.pt", value, weights)
        assert f"x.pt: ema.shadow_params: found averages, {says}" in str(told.value)
        assert "\n" not in str(told.value)
    assert_are(found(tmp_path / "x.pt", value, "model")[1], RAW)


def test_two_lists_that_fit_want_a_key(tmp_path):
    value = {"model": RAW, "ema": torch_ema(EMA.values(), collected_params=[*RAW.values()])}
    with pytest.raises(UsageError, match=r"weights: ema.shadow_params, ema.collected_params, or the key"):
        found(tmp_path / "x.pt", value)
    assert_are(found(tmp_path / "x.pt", value, "shadow_params")[1], EMA)


def test_a_list_of_the_weights_sizes_that_is_not_called_averages_wants_a_key(tmp_path):
    value = {"model": RAW, "optimizer": {"momenta": [*EMA.values()]}}
    with pytest.raises(UsageError, match=r"found lists that may be averages .* optimizer.momenta"):
        found(tmp_path / "x.pt", value)
    assert_are(found(tmp_path / "x.pt", value, "model")[1], RAW)


def test_a_list_alone_is_taken_by_the_very_class_of_its_code_only(tmp_path):
    value = torch_ema(EMA.values())
    assert_are(found(tmp_path / "x.pt", value, ordered=True)[1], EMA)
    with pytest.raises(UsageError, match="shadow_params: found averages, 4 tensors without names, whose order only"):
        found(tmp_path / "x.pt", value)


def lit_ema():
    """As latent-diffusion saves: names of its averages without dots."""
    raw = {f"model.net.{name}": tensor for name, tensor in RAW.items()}
    averages = {f"model_ema.{('net.' + name).replace('.', '')}": tensor for name, tensor in EMA.items()}
    return {"state_dict": {**raw, **averages, "model_ema.decay": torch.tensor(0.9)}, "step": 5}


def test_names_without_dots_get_those_of_the_weights_beside_them(tmp_path):
    with pytest.raises(UsageError, match=r"found several state dicts .*: .*model_ema"):
        found(tmp_path / "x.pt", lit_ema())
    whole, tensors = found(tmp_path / "x.pt", lit_ema(), "model_ema")
    assert_are(tensors, EMA)
    assert whole.missing == []
    _, tensors = found(tmp_path / "x.pt", lit_ema(), "model.net")
    assert_are(tensors, RAW)
