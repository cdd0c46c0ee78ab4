"""Make a virtual environment with cmbench in it, whole or not at all.

The Makefile calls it; without make: `python3 scripts/install.py .venv`. It needs the standard library alone, and its
syntax is Python 3.6's, so that a Python that is too old is told so.

An environment made here holds a stamp that says what it was made from. Marked as begun it is half installed, and is
made anew. One that works is kept whatever happens: an update that fails or is interrupted is tried again by the next
call, and one that is remade for another Python stands aside until the new one is whole. An environment that somebody
else made is installed into, and never removed.
"""

import argparse
import hashlib
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT, TESTED = ROOT / "pyproject.toml", ROOT / "constraints.txt"
# Gigabytes to download and on disk, measured on Linux x86_64, where torch comes with CUDA; elsewhere far less.
DOWNLOAD, DISK = (3.2, 6.0) if (sys.platform, platform.machine()) == ("linux", "x86_64") else (0.5, 2.0)
DISK_BESIDE_OWN_TORCH = 1.0
OWN = ("torch", "torchvision", "triton", "numpy")  # built for each other: who keeps his torch keeps all of them
NO_NETWORK = re.compile(
    "NameResolutionError|Failed to establish a new connection|Network is unreachable|Connection refused|ProxyError"
    "|ConnectTimeout|Read timed out|Temporary failure in name resolution|Max retries exceeded"
)
BIG_DOWNLOAD = re.compile(
    r"Downloading (?:\S*/)?([A-Za-z0-9_.]+-[0-9][^-\s]*)\S* \(([0-9.]+ GB|[0-9]{2,}\.?[0-9]* MB)\)"
)


class RefusedError(Exception):
    """What cannot be done, and the way out, in one line."""


def main():
    """Make the environment, or exit with one line that says why not."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        check_python()
        install(arguments())
    except RefusedError as refusal:
        sys.exit(f"cmbench: {refusal}")
    except KeyboardInterrupt:
        sys.exit("cmbench: interrupted; the same command goes on")


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("venv", type=Path, help="folder of the environment")
    parser.add_argument("--dev", action="store_true", help="add the developer's tools")
    parser.add_argument("--own-torch", action="store_true", help="use the torch of this Python, and never replace it")
    parser.add_argument("--this-python", action="store_true", help="remake an environment of another Python")
    parser.add_argument(
        "--packages",
        choices=("tested", "newest", "oldest"),
        default="tested",
        help="versions: those of constraints.txt, the newest allowed, the lowest allowed",
    )
    return parser.parse_args()


def check_python():
    """Refuse a Python that is too old or cannot make environments."""
    if sys.version_info < (3, 10):
        newer = [name for name in map("python3.{}".format, range(20, 9, -1)) if runs(name)]
        way_out = "make PYTHON={}".format(newer[0] if newer else "/path/to/a/newer/python3")
        version = platform.python_version()
        raise RefusedError(f"needs Python 3.10 or newer; {sys.executable} is {version}; try {way_out}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        package = f"python3.{sys.version_info[1]}-venv"
        raise RefusedError(f"{sys.executable} lacks the module {error.name} (Debian: apt install {package})") from None


def runs(command):
    """Return whether a command is there and runs."""
    try:
        return subprocess.call([command, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def install(asked):
    """Make the environment or bring it up to date, unless it is as asked."""
    venv = asked.venv.resolve() if asked.venv.is_symlink() else asked.venv
    stamp, begun, aside = venv / ".installed", venv / ".begun", venv.with_name(venv.name + ".before")
    settle(venv, aside)
    made = {} if begun.exists() else read_stamp(stamp)
    is_ours = made.get("ours", begun.exists() or not venv.exists())
    if not is_ours:
        check_others(venv, asked)
    wanted = dict(made_from(asked, made), ours=is_ours)
    has_python = (venv / "bin" / "python").exists()
    if has_python and (made == wanted or made == dict(wanted, dev=True)):
        return
    pins = versions_of_own_torch() if asked.own_torch else []
    is_other = any(made.get(key) != wanted[key] for key in ("python", "own_torch", "packages"))
    is_new = is_ours and (is_other or not has_python)
    if is_new:
        check_disk(venv, DISK_BESIDE_OWN_TORCH if pins else DISK)
    announce(venv, wanted, pins, is_new)
    try:
        if is_new:
            venv.rename(aside) if made and has_python else remove(venv)
            venv.mkdir(parents=True)
            begun.touch()
        elif made:
            write_stamp(stamp, dict(made, sha256=""))  # of nothing, until the update is through
        if not (venv / "bin" / "python").exists():
            call([sys.executable, "-m", "venv", str(venv)])
        if pins:
            share_packages(venv)
        fill(venv, wanted, pins)
        write_stamp(stamp, wanted)
        if is_new:
            begun.unlink()
    except KeyboardInterrupt:
        raise RefusedError("interrupted; the same command goes on, and pip keeps what it has downloaded") from None
    except OSError as error:
        raise RefusedError(f"{venv}: {error.strerror or error}") from None
    finally:
        if begun.exists():
            remove(venv)
        settle(venv, aside)


def settle(venv, aside):
    """Put back the environment that stands aside where no new one was made, and remove it where one was."""
    if not aside.exists():
        return
    is_half_made = (venv / ".begun").exists()
    if is_half_made or not venv.exists() or not any(venv.iterdir()):
        remove(venv)
        aside.rename(venv)
    elif (venv / ".installed").exists():
        remove(aside)


def remove(venv):
    """Remove an environment that was made here; the mark that it was goes last, for this may be interrupted too."""
    if not venv.exists():
        return
    begun = venv / ".begun"
    begun.touch()
    for path in venv.iterdir():
        if path != begun:
            shutil.rmtree(str(path), ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
    begun.unlink()
    venv.rmdir()


def check_others(venv, asked):
    """Refuse an environment that somebody else made and that does not serve."""
    config = venv / "pyvenv.cfg"
    if not config.exists():
        raise RefusedError(f"{venv} is not a virtual environment: move it away, or name another by VENV=...")
    if asked.this_python and f"version = {platform.python_version()}" not in config.read_text():
        raise RefusedError(f"{venv} was not made by make, and for another Python: name another by VENV=...")


def made_from(asked, made):
    """Return what an environment is to be made from. Where none is named, the Python that it has is kept."""
    content = PROJECT.read_bytes() + TESTED.read_bytes()
    here = platform.python_version()
    return {
        "python": here if asked.this_python else made.get("python", here),
        "dev": asked.dev,
        "packages": asked.packages,
        "own_torch": sys.executable if asked.own_torch else "",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def read_stamp(path):
    """Return what an environment was made from; {} where that is not known."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(path, made):
    """Say what an environment is made from, so that a kill leaves the old word or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(made))
    new.replace(path)


def versions_of_own_torch():
    """Return pins on the torch of this Python and on what belongs to it."""
    from importlib import metadata

    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"] in OWN}
    if "torch" not in found:
        raise RefusedError(f"{sys.executable} has no torch; name the Python that has it by PYTHON=...")
    return [f"{name}==={found[name]}" for name in sorted(found)]


def share_packages(venv):
    """Let an environment import what this Python can import, also where this Python is an environment itself."""
    inside = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([str(venv / "bin" / "python"), "-c", inside]).decode().strip())
    folders = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in folders]
    (packages / "own_torch.pth").write_text("".join(lines))


def check_disk(venv, needed):
    """Refuse where the disk has too little room."""
    place = venv.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(str(place)).free / 1e9
    if free < needed:
        raise RefusedError(f"{venv} wants {needed:.1f} GB of disk, and {place} has {free:.1f} GB free")


def announce(venv, wanted, pins, is_new):
    """Say what will be done and what it takes."""
    if pins:
        takes = "keeps {}".format(", ".join(pins))
    elif is_new:
        takes = f"downloads up to {DOWNLOAD} GB once, takes {DISK} GB of disk and some minutes"
    else:
        takes = "downloads what has changed"
    print("cmbench: installs into {} for Python {}: {}".format(venv, wanted["python"], takes), flush=True)


def fill(venv, wanted, pins):
    """Install cmbench and what it needs."""
    python = str(venv / "bin" / "python")
    constraints = venv / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    chosen = ["--constraint", str(constraints)]
    if wanted["packages"] == "tested" and not pins:
        chosen = ["--constraint", str(TESTED)]
    elif wanted["packages"] == "oldest":
        pip(python, ["uv"])
        extras = ["--extra", "dev"] if wanted["dev"] else []
        lowest = [python, "-m", "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--no-annotate"]
        call([*lowest, "--python", python, *extras, "--output-file", str(constraints), str(PROJECT)])
    pip(python, [*chosen, "--editable", str(ROOT) + ("[dev]" if wanted["dev"] else "")])


def pip(python, arguments):
    """Install by pip; print the large downloads only, and of an error one line."""
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    call([python, "-m", "pip", "install", *options, *arguments])


def call(command):
    """Run a command; print what is known to last, and of an error one line."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for line in process.stdout:
                lines.append(line.decode(errors="replace").strip())
                if BIG_DOWNLOAD.match(lines[-1]):
                    print("  downloads {} ({})".format(*BIG_DOWNLOAD.match(lines[-1]).groups()), flush=True)
                elif lines[-1].startswith("Installing collected packages"):
                    print("  unpacks {} packages".format(lines[-1].count(",") + 1), flush=True)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode:
        raise RefusedError(reason("\n".join(lines)))


def reason(output):
    """Say in one line why a command failed."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return f"the disk is full; free some (a whole environment takes {DISK:.1f} GB) and call it again"
    if NO_NETWORK.search(output):
        return "the package index cannot be reached: no network, or a proxy that pip is not told of (PIP_PROXY)"
    lines = [line for line in output.splitlines() if line and not line.startswith("WARNING")]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["pip failed without a word"])[-1][:300]


if __name__ == "__main__":
    main()
