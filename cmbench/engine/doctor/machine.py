"""The machine: python, torch, GPUs, threads, dependencies of cmbench, and the folder for runs."""

import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement

from cmbench.engine.doctor.check import Check, Level

_GIB = 2**30
_LITTLE_SPACE = 2 * _GIB
_EXTRAS = {"gpu": "memory and load of the GPU in the dashboard", "lpips": "objective.distance = 'lpips'"}
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "lustre", "beegfs", "gpfs", "fuse.sshfs", "9p"}


def checks(runs: Path) -> list[Check]:
    """Return the findings about this machine; `runs` is the folder for runs."""
    return [_python(), _torch(), _gpu(), _threads(), _memory(), *_dependencies(), runs_folder_check(runs)]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()}, {sys.executable}")


def _torch() -> Check:
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Check("torch", "ok", f"{torch.__version__}, built for {built}")


def _gpu() -> Check:
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = [f"{gpu.name}, {gpu.total_memory / _GIB:.0f} GiB" for gpu in gpus]
        return Check("gpu", "ok", "; ".join(names), values={"gpus": names})
    if shutil.which("nvidia-smi"):
        advice = "install torch's build for the CUDA of this driver (pytorch.org), or look at CUDA_VISIBLE_DEVICES"
        return Check("gpu", "warn", "nvidia-smi is here, but torch sees no GPU", advice)
    return Check("gpu", "ok", "none; train.device = 'auto' is the CPU")


def _threads() -> Check:
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{threads} of torch on {cores} {'core' if cores == 1 else 'cores'}"
    if threads > cores:
        return Check("threads", "warn", found, f"OMP_NUM_THREADS={cores}: more threads than cores wait for each other")
    return Check("threads", "ok", found)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    if memory.available < _GIB:
        return Check("memory", "warn", found, "end other processes, or the system may end training")
    return Check("memory", "ok", found)


def _dependencies() -> list[Check]:
    try:
        wanted = [Requirement(line) for line in metadata.requires("cmbench") or ()]
    except metadata.PackageNotFoundError:
        return [Check("packages", "-", "cmbench is not installed, so its dependencies are unknown", "pip install -e .")]
    own = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    problems = {r.name: problem for r in own if (problem := _problem(r))}
    names = ", ".join(f"{r.name} {metadata.version(r.name)}" for r in own if r.name not in problems)
    found = Check("packages", "ok", names)
    broken = [
        Check(n, "fail", p, f"pip install '{r}'") for r in own if (n := r.name) in problems and (p := problems[n])
    ]
    return [found, *broken, *(_extra(extra, wanted) for extra in _EXTRAS)]


def _problem(wanted: Requirement) -> str:
    """Return what is wrong with a package; empty if nothing is."""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return "not installed"
    allowed = wanted.specifier.contains(version, prereleases=True)
    return "" if allowed else f"{version}, allowed: {wanted.specifier}"


def _extra(extra: str, wanted: list[Requirement]) -> Check:
    mine = [
        r for r in wanted if r.marker is not None and "extra" in str(r.marker) and r.marker.evaluate({"extra": extra})
    ]
    for requirement in mine:
        if problem := _problem(requirement):
            level: Level = "warn" if extra == "gpu" and torch.cuda.is_available() else "ok"
            advice = f"for {_EXTRAS[extra]}: pip install 'cmbench[{extra}]'"
            return Check(f"[{extra}]", level, f"{requirement.name}: {problem}", advice)
    return Check(f"[{extra}]", "ok", ", ".join(f"{r.name} {metadata.version(r.name)}" for r in mine))


def runs_folder_check(runs: Path) -> Check:
    """Return whether runs can be written in a folder, which need not exist."""
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Check("runs", "fail", f"{runs} cannot be written: {error.strerror}", "--runs-dir or CMBENCH_RUNS_DIR")
    free, kind = psutil.disk_usage(str(there)).free, _file_system(there)
    found = f"{runs}{'' if runs.exists() else ' (to be made)'}, {free / _GIB:.1f} GiB free" + (
        f", {kind}" if kind else ""
    )
    if free < _LITTLE_SPACE:
        return Check("runs", "warn", found, "make room, keep fewer checkpoints, or choose another --runs-dir")
    if kind in ("tmpfs", "ramfs"):
        return Check("runs", "warn", found, "this folder lies in memory and is gone after a restart")
    if kind in _NETWORK_FILE_SYSTEMS:
        return Check("runs", "ok", found, "a network file system: runs work there; start a run from one host at a time")
    return Check("runs", "ok", found)


def _file_system(folder: Path) -> str:
    """Return the type of the file system that contains a folder; empty if unknown."""
    try:
        partitions = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    over = [p for p in partitions if folder.resolve().is_relative_to(p.mountpoint)]
    return max(over, key=lambda p: len(p.mountpoint)).fstype if over else ""
