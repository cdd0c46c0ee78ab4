"""An array in a file: mapped where it lies, or in memory, with rows as native numbers."""

from dataclasses import dataclass

import numpy as np

from cmbench import regular

BLOCK = 1 << 20  # bytes that are looked at together: what a processor's cache holds
BFLOAT16 = "bfloat16"
# numpy knows no bfloat16. Its bits are the upper half of a float32.


@dataclass(frozen=True, eq=False)
class Stored:
    """An array of a file.

    Attributes:
        values: (M, ...), in any byte order, in C or Fortran order; bfloat16 as its bits, uint16.
        where: its name in messages, such as "pairs.npz: x".
        is_bfloat16: whether the values are bits of bfloat16.
        is_mapped: whether its rows stay in the file until they are wanted.
    """

    values: np.ndarray
    where: str
    is_bfloat16: bool = False
    is_mapped: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, (M, ...)."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Its size as it lies."""
        return self.values.nbytes

    @property
    def type_name(self) -> str:
        """The name of its numbers, such as "float16"."""
        return BFLOAT16 if self.is_bfloat16 else self.values.dtype.name

    @property
    def is_bytes(self) -> bool:
        """Whether it holds uint8, which are pictures of 0 to 255."""
        return self.values.dtype == np.uint8

    @property
    def is_float(self) -> bool:
        """Whether it holds floats of 16 to 64 bits."""
        return self.is_bfloat16 or (self.values.dtype.kind == "f" and self.values.dtype.itemsize <= 8)

    def rows(self, index: np.ndarray | slice) -> np.ndarray:
        """Return a copy of some rows in native byte order and C order; bfloat16 as float32. (n, ...)."""
        found = self.values[index].copy() if isinstance(index, slice) else self.values[index]
        if self.is_bfloat16:
            return (found.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(found, dtype=found.dtype.newbyteorder("="))

    def expect_single_rows(self) -> None:
        """As `cmbench.regular.expect_single_rows`."""
        regular.expect_single_rows(self.values)

    def blocks(self) -> list[slice]:
        """Return slices that cover all rows, of about 1 MiB each."""
        step = max(1, BLOCK // max(1, self.nbytes // max(1, len(self))))
        return [slice(start, start + step) for start in range(0, len(self), step)]
