"""Exit with 2 and one line where there is no GPU.

`make gpu` calls this before it installs anything. It needs the standard library alone, and its syntax is Python 3.6's.
It asks NVIDIA's driver, as torch does; with --own-torch it asks the torch of this Python.
"""

import ctypes
import sys

DRIVER = "libcuda.so.1"
REFUSAL = "cmbench: make gpu needs a GPU: {}"


def main():
    """Return quietly if there is a GPU."""
    reason = of_own_torch() if "--own-torch" in sys.argv[1:] else of_driver()
    if reason:
        print(REFUSAL.format(reason), file=sys.stderr)
        sys.exit(2)


def of_driver():
    """Return why NVIDIA's driver offers no GPU; empty if it does."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"NVIDIA's driver ({DRIVER}) is not here"
    count = ctypes.c_int(0)
    error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if error == 100:  # CUDA_ERROR_NO_DEVICE
        return "NVIDIA's driver finds none"
    if error:
        return f"NVIDIA's driver fails with CUDA error {error}"
    return "" if count.value else "NVIDIA's driver shows none; is CUDA_VISIBLE_DEVICES empty?"


def of_own_torch():
    """Return why the torch of this Python can use no GPU; empty if it can, and where install.py will say why not."""
    try:
        import torch
    except ImportError:
        return ""
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} of {sys.executable} finds none"


if __name__ == "__main__":
    main()
