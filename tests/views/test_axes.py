import time

import pytest

from cmbench.views.axes import OF_RUNS, dates


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
def zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def moment(text):
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


SPANS = [5, 50, 600, 3600, 6 * 3600, 86400, 5 * 86400, 40 * 86400, 3000 * 86400]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("most", [2, 5, 9])
def test_dates_on_an_axis_are_round_and_true(zone, span, most):
    low = moment("2026-01-05 13:47:11")
    found = dates(low, low + span, most)
    assert len(found) <= most
    assert all(low <= at <= low + span for at, _ in found)
    for at, label in found:
        day, _, hour = label.rpartition(" ") if ":" in label else (label, "", "")
        local = time.localtime(at)
        for part, forms in ((day, ("%m-%d", "%Y-%m-%d")), (hour, ("%H:%M", "%H:%M:%S"))):
            assert not part or part in {time.strftime(form, local) for form in forms}
    labels = [label for _, label in found]
    assert not labels or "-" in labels[0]  # the first tells its day


def test_each_day_is_told_once(zone):
    low = moment("2026-01-05 18:00:00")
    labels = [label for _, label in dates(low, low + 12 * 3600, 5)]
    assert labels == ["01-05 18:00", "21:00", "01-06 00:00", "03:00", "06:00"]


@pytest.mark.parametrize("ends", [(0.0, 0.0), (5.0, 1.0), (0.0, 1e300), (float("nan"), 1.0)])
def test_no_dates_where_there_is_no_axis(ends):
    assert dates(*ends, 5) == []


def test_places_are_named_in_full(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    names = {key: axis.name for key, axis in OF_RUNS.items()}
    assert names["step"](123_456) == "step 123,456"
    assert names["images"](1_280_000) == "1,280,000 images"
    assert (names["time"](3.456), names["time"](3933.0)) == ("3.46 s of training", "1h05m33s of training")
    assert names["wall"](1_700_000_000) == "2023-11-14 22:13:20"
    assert names["forwards"](5120.0) == "5,120 forwards"
    monkeypatch.undo()
    time.tzset()
