"""The keys of a whole block's raw records, packed at once; see :mod:`.rawkey`."""

import numpy as np
from numpy.typing import NDArray

from schemas.rawkey import SIZE

_LAYOUT = np.dtype([("descriptor", "V16"), ("offset", ">u8"), ("number", ">u8"), ("skipped", ">u8")])


def pack(
    descriptor: bytes, offsets: NDArray[np.int64], numbers: NDArray[np.int64], skipped: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """A row of 40 bytes for each record of the file with this descriptor id."""
    keys = np.empty(len(offsets), _LAYOUT)
    keys["descriptor"] = np.void(descriptor)
    keys["offset"], keys["number"], keys["skipped"] = offsets, numbers, skipped
    return keys.view(np.uint8).reshape(-1, SIZE)
