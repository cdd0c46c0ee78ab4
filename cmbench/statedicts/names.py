"""What published code calls the parts of a network: the one table of names."""

import re
from collections.abc import Callable, Sequence

# Parts that wrappers put into a name, anywhere: DataParallel, torch.compile, FSDP, activation checkpoints.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

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


def schemes(kind: str) -> list[Callable[[str], str]]:
    """Return the ways to read a file's names for a kind of network: as they are, and with the kind's renames."""
    rules = [(re.compile(rf"(?:^|(?<=\.)){pattern}"), to) for pattern, to in RENAMES.get(kind, ())]

    def renamed(name: str) -> str:
        for pattern, to in rules:
            name = pattern.sub(to, name)
        return name

    return [lambda name: name, *([renamed] if rules else [])]
