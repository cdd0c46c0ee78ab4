"""What published code calls the parts of a network: the one table of names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cmbench.statedicts import openai
from cmbench.statedicts.files import Entry

# Parts that wrappers put into a name, anywhere: DataParallel, torch.compile, FSDP, activation checkpoints.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

OPENAI = "OpenAI"

# EDM's DDPM++, NCSN++ and ADM (Karras et al. 2022). Filters are constants, which a network builds from its settings.
_EDM = (
    (r"map_noise\.freqs$", "time.frequencies"),
    (r"(?:conv0|skip)\.resample_filter$", "resample.kernel"),
    (r"(\w*)aux_down\.resample_filter$", r"\1aux_skip.resample.kernel"),
    (r"(\w*)aux_residual\.resample_filter$", r"\1aux_residual.resample.kernel"),
)

# Renames by the kind of the network: published name to ours, as patterns that begin at a name's part.
RENAMES: dict[str, Sequence[tuple[str, str]]] = {
    **dict.fromkeys(("ddpmpp", "ncsnpp", "adm"), _EDM),
    # EDM2 (Karras et al. 2024) keeps its U-Net beside a learned log-variance; a file may have the U-Net alone.
    "edm2": ((r"(?=(?:enc|dec|emb_fourier|emb_noise|emb_label|out_conv|out_gain)\b)", "unet."),),
}


def unwrapped(name: str) -> str:
    """Return a name without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


@dataclass(frozen=True)
class Scheme:
    """A way to read a file's names and tensors.

    Attributes:
        ours: returns our name of a published one.
        fitted: returns a tensor in our layout, given also our name.
        author: whose names these are, if their network is another function for some settings.
    """

    ours: Callable[[str], str]
    fitted: Callable[[Entry, str], Entry] = lambda entry, name: entry
    author: str = ""


def schemes(kind: str, expected: Sequence[str] = ()) -> list[Scheme]:
    """Return the ways to read a file for a kind of network: as it is, and with the kind's renames.

    Args:
        kind: of the network.
        expected: its own names, in their order.
    """
    found = [Scheme(lambda name: name)]
    if rules := [(re.compile(rf"(?:^|(?<=\.)){pattern}"), to) for pattern, to in RENAMES.get(kind, ())]:
        found.append(Scheme(lambda name: _renamed(name, rules)))
    if kind == "adm":
        numbered = openai.names(expected)
        found.append(Scheme(lambda name: _looked_up(name, numbered), openai.fitted, OPENAI))
    return found


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, to in rules:
        name = pattern.sub(to, name)
    return name


def _looked_up(name: str, table: Mapping[str, str]) -> str:
    """Return a name whose end, from some part on, is in a table."""
    parts = name.split(".")
    for i in range(len(parts)):
        if own := table.get(".".join(parts[i:])):
            return ".".join((*parts[:i], own))
    return name
