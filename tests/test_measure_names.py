"""The table of measures: it names the files that there are, and says which way is better."""

import pytest

from cmbench import measures
from cmbench.measures import MEASURES, OF_SAMPLES, better, quality_keys, row_key, sampler_steps
from cmbench.recipe import component_names


def test_the_table_names_every_file_of_the_folder():
    assert sorted(MEASURES) == component_names("evaluation")


def test_keys_are_different():
    assert len({measure.key for measure in MEASURES.values()}) == len(MEASURES)


def test_names_of_rows():
    assert [row_key(name, 2) for name in OF_SAMPLES] == [
        *("sw_2step", "energy_2step", "mmd_2step", "fd_2step"),
        *("precision_2step", "recall_2step", "density_2step", "coverage_2step", "nn_2step"),
    ]


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("sw_1step", "lower"),
        ("fd_12step", "lower"),
        ("recall_1step", "higher"),
        ("nn_1step", ""),
        ("true_error", "lower"),
        ("true_error_1step", "lower"),
        ("loss", ""),
        ("swx_1step", ""),
        ("N", ""),
    ],
)
def test_which_way_is_better(key, way):
    assert better(key) == way


def test_a_figure_of_functions_has_no_row_of_samples():
    with pytest.raises(KeyError):
        measures.row_key("consistency_error", 1)


@pytest.mark.parametrize(
    ("keys", "quality"),
    [
        (["loss", "sw_10step", "fd_1step", "sw_2step"], ["sw_2step", "sw_10step"]),
        (["precision_1step", "recall_1step", "true_error_1step"], ["precision_1step"]),
        (["fd_1step", "precision_1step"], ["fd_1step"]),
        (["nn_1step", "coverage_4step"], ["coverage_4step"]),
        (["nn_1step", "swx_1step", "sw_step", "sw_1stepx", "sw_", "sw_" + "9" * 5000 + "step"], []),
    ],
)
def test_which_rows_tell_quality(keys, quality):
    assert quality_keys(keys) == quality


def test_sampler_steps_of_a_row():
    assert [sampler_steps(key) for key in ("sw_1step", "precision_12step", "loss", "true_error")] == [1, 12, None, None]
