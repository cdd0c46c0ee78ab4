from cmbench.rundir.summary import Summary


def test_the_last_of_every_metric_and_the_best_of_quality():
    rows = [
        {"step": 1, "time": 5.0, "segment": 1, "images": 8, "loss": 3.0, "grad_norm": 1.0},
        {"step": 2, "time": 6.0, "segment": 1, "images": 16, "sw_1step": 0.4, "sw_2step": 0.2},
        {"step": 3, "time": 7.0, "segment": 1, "images": 24, "loss": None, "nonfinite": {"loss": "nan"}},
        {"step": 4, "time": 8.0, "segment": 2, "images": 32, "sw_1step": 0.3, "sw_2step": 0.5, "loss": 5.0},
        {"step": 6, "time": 9.0, "segment": 2, "images": 48, "sw_1step": 0.3, "sw_2step": None},
    ]
    summary = Summary(rows)
    assert summary.last == {"loss": 5.0, "grad_norm": 1.0, "sw_1step": 0.3, "sw_2step": 0.5}
    assert summary.best == {"sw_1step": {"value": 0.3, "step": 4}, "sw_2step": {"value": 0.2, "step": 2}}
    assert (Summary().last, Summary().best) == ({}, {})
