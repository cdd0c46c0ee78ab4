"""Checkpoints: a round trip, damage that is noticed, crashes that leave the older ones whole."""

import json
from pathlib import Path

import pytest
import torch

from cmbench.engine import checkpoint
from cmbench.engine.checkpoint import DamagedError
from cmbench.errors import NotFoundError
from cmbench.rundir import files
from cmbench.rundir.layout import RunDir, steps_of_checkpoints


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.checkpoints.mkdir(parents=True)
    return made


def groups(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(2, generator=generator).bfloat16()},
        "optimizer": {"0.step": torch.tensor(7.0), "0.exp_avg": torch.randn(5, generator=generator).double()},
        "means": {"count": torch.tensor(3, dtype=torch.int64)},
    }


def assert_equal(found: dict, wanted: dict) -> None:
    assert {name: set(group) for name, group in found.items()} == {name: set(group) for name, group in wanted.items()}
    for name, group in wanted.items():
        for key, tensor in group.items():
            assert found[name][key].dtype == tensor.dtype
            assert torch.equal(found[name][key], tensor)


def test_what_is_saved_is_loaded(run):
    folder = checkpoint.save(run, 20, groups())
    assert folder.name == "00000020"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "means.safetensors",
        "state.json",
    }
    assert_equal(checkpoint.load(run, 20), groups())
    assert [path.name for path in run.checkpoints.iterdir()] == ["00000020"]


def test_tensors_that_are_not_contiguous_or_want_a_gradient(run):
    x = torch.arange(12.0).reshape(3, 4)
    saved = {"model": {"transposed": x.T, "parameter": torch.nn.Parameter(x[:, 1])}}
    checkpoint.save(run, 1, saved)
    assert_equal(checkpoint.load(run, 1), saved)


def test_any_flipped_bit_is_noticed(run):
    path = checkpoint.save(run, 5, groups()) / "model.safetensors"
    whole = path.read_bytes()
    for place in (0, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=r"00000005/model\.safetensors: damaged.*checksum"):
            checkpoint.load(run, 5)
        with pytest.raises(DamagedError):
            checkpoint.load_group(run, 5, "model")
    path.write_bytes(whole)
    assert_equal(checkpoint.load(run, 5), groups())


def test_a_truncated_or_missing_file_is_noticed(run):
    path = checkpoint.save(run, 5, groups()) / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedError, match=r"optimizer\.safetensors: damaged"):
        checkpoint.load(run, 5)
    path.unlink()
    with pytest.raises(DamagedError, match=r"optimizer\.safetensors: cannot be read: No such file"):
        checkpoint.load(run, 5)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"step": 5}'])
def test_a_missing_or_broken_state_is_noticed(run, content):
    path = checkpoint.save(run, 5, groups()) / "state.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"00000005/state\.json: missing or broken"):
        checkpoint.load(run, 5)


def test_a_file_without_a_checksum_that_is_no_safetensors_is_noticed(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(DamagedError, match="damaged"):
        checkpoint.read_tensors(tmp_path / "x.safetensors")


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_are_named(run):
    for step in (5, 10, 100, 20):
        checkpoint.save(run, step, groups(step))
    step, found, damaged = checkpoint.newest(run)
    assert (step, damaged) == (100, [])
    (checkpoint.folder_of(run, 100) / "state.json").unlink()
    (checkpoint.folder_of(run, 20) / "means.safetensors").write_bytes(b"")
    step, found, damaged = checkpoint.newest(run)
    assert step == 10
    assert_equal(found, groups(10))
    assert len(damaged) == 2
    assert "00000100" in damaged[0]
    assert "00000020" in damaged[1]


def test_without_a_whole_checkpoint_there_is_none(run):
    with pytest.raises(NotFoundError, match="no checkpoint to resume from"):
        checkpoint.newest(run)
    (checkpoint.save(run, 5, groups()) / "state.json").unlink()
    with pytest.raises(NotFoundError, match=r"no checkpoint to resume from .*00000005"):
        checkpoint.newest(run)


def test_a_damaged_checkpoint_exits_as_one_that_is_not_there():
    assert DamagedError.exit_code == NotFoundError.exit_code == 4


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, [], [50]), (2, [], [40, 50]), (2, [10], [10, 40, 50]), (2, [50], [40, 50]), (9, [], [10, 20, 30, 40, 50])],
)
def test_prune_keeps_the_newest_and_the_best(run, keep, best, left):
    for step in (10, 20, 30, 40, 50):
        checkpoint.save(run, step, {"model": groups()["model"]})
    checkpoint.prune(run, keep, best)
    assert steps_of_checkpoints(run) == left
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [f"{step:08d}" for step in left]


class CrashError(Exception):
    pass


def crash(*args: object, **kwargs: object) -> None:
    raise CrashError


def crash_in_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = checkpoint.write_tensors, []

    def write_once(path: Path, tensors: dict) -> str:
        calls.append(path)
        return write(path, tensors) if len(calls) == 1 else crash()

    monkeypatch.setattr(checkpoint, "write_tensors", write_once)


MOMENTS = {
    "the tensors": crash_in_tensors,
    "fsync": lambda patch: patch.setattr("os.fsync", crash),
    "state.json": lambda patch: patch.setattr(checkpoint, "write_atomically", crash),
    "the replacing": lambda patch: patch.setattr(Path, "replace", crash),
    "the renaming": lambda patch: patch.setattr(Path, "rename", crash),
    "the folder's fsync": lambda patch: patch.setattr(files, "fsync_folder", crash),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_while_saving_leaves_the_older_ones(run, monkeypatch, moment):
    checkpoint.save(run, 5, groups(5))
    checkpoint.save(run, 10, groups(10))
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(CrashError):
            checkpoint.save(run, 15, groups(15))
    assert_equal(checkpoint.load(run, 5), groups(5))
    assert_equal(checkpoint.load(run, 10), groups(10))
    step, found, damaged = checkpoint.newest(run)
    assert (step, damaged) == (10, [])
    assert_equal(found, groups(10))
    checkpoint.save(run, 15, groups(15))
    assert checkpoint.newest(run)[0] == 15
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["00000005", "00000010", "00000015"]


def test_nothing_has_its_name_before_it_is_whole(run, monkeypatch):
    rename, seen = Path.rename, []

    def look(self: Path, target: Path) -> Path:
        state = json.loads((self / "state.json").read_bytes())
        seen.append(
            (steps_of_checkpoints(run), {path.stem for path in self.glob("*.safetensors")}, set(state["sha256"]))
        )
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    checkpoint.save(run, 5, groups())
    assert seen == [([], set(groups()), set(groups()))]


def test_a_step_may_be_saved_again(run):
    checkpoint.save(run, 5, groups(1))
    checkpoint.save(run, 5, groups(2))
    assert_equal(checkpoint.load(run, 5), groups(2))
    assert [path.name for path in run.checkpoints.iterdir()] == ["00000005"]


def test_a_crash_while_pruning_leaves_no_half_checkpoint(run, monkeypatch):
    for step in (5, 10, 15):
        checkpoint.save(run, step, groups(step))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(CrashError):
            checkpoint.prune(run, 2, [])
    assert steps_of_checkpoints(run) == [10, 15]
    checkpoint.save(run, 20, groups(20))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["00000010", "00000015", "00000020"]


def test_a_crash_between_leaving_its_place_and_being_replaced_is_recovered(run, monkeypatch):
    checkpoint.save(run, 5, {"model": {"a": torch.ones(2)}})
    rename, renames = Path.rename, []

    def fail_at_the_second(self, target):
        renames.append(target)
        if len(renames) == 2:
            raise OSError("torn")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_second)
    with pytest.raises(OSError, match="torn"):
        checkpoint.save(run, 5, {"model": {"a": torch.zeros(2)}})
    checkpoint.recover(run)
    assert checkpoint.newest(run)[0] == 5
    assert checkpoint.is_whole(run, 5)


def test_tensors_that_share_memory_are_saved(run):
    shared = torch.ones(3)
    checkpoint.save(run, 1, {"model": {"a": shared, "b": shared}})
    assert torch.equal(checkpoint.load(run, 1)["model"]["b"], shared)
