"""Tables of untrusted HDF5 files, read in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from hepgen_ml.errors import InputError

_MOST_COLUMNS = 20_000
_LARGEST_CHUNK = 1 << 28
_LONGEST_TEXT = 16_000_000
_MOST_COMPRESSED, _LITTLE = 2_000, 1 << 24
"""Largest size of a dataset relative to the file, and size without this limit: deflate compresses
by at most a factor of 1,032, and a dataset that was never written could have any size."""

Floats = npt.NDArray[np.float64]


class Tables:
    """Datasets of a file by name.

    Links to other files, external storage and virtual datasets are refused, so that no other file
    is opened.

    Raises
    ------
    InputError
        The file is not an HDF5 file; in all methods, data are missing, damaged or too large.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self._n_bytes = path.stat().st_size
            self.file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise self.fail(
                f"is not a readable HDF5 file ({str(error).splitlines()[0]})",
                remedy="check the path, or copy the file again if it was cut short",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        """Error about this file."""
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    def names(self, group: str = "/") -> list[str]:
        """Names in a group, none if it is missing."""
        import h5py

        found = self._object(group)
        return sorted(found) if isinstance(found, h5py.Group) else []

    def _object(self, name: str) -> Any:
        """Object of this file itself; None if it does not exist."""
        import h5py

        found: Any = self.file
        try:
            for part in name.strip("/").split("/"):
                if not part:
                    continue
                if not isinstance(found, h5py.Group):
                    return None
                link = found.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, h5py.HardLink):
                    raise self.fail(f"{name!r} is a link", remedy="copy the data into one file")
                found = found.get(part)
        except InputError:
            raise
        except Exception as error:  # h5py raises many kinds on damaged files
            raise self.fail(f"is damaged at {name!r} ({_line(error)})") from error
        return found

    def dataset(self, name: str) -> Any:
        """A dataset of numbers; None if it does not exist."""
        import h5py

        found = self._object(name)
        if not isinstance(found, h5py.Dataset):
            return None
        if found.is_virtual or found.external:
            raise self.fail(
                f"the data of {name!r} are in other files",
                remedy="put them into one file, for instance with h5repack",
            )
        if found.dtype.kind not in "iuf":
            raise self.fail(f"{name!r} holds no numbers")
        if found.chunks and np.prod(found.chunks, dtype=float) * 8 > _LARGEST_CHUNK:
            raise self.fail(f"chunks of {name!r} are larger than {_LARGEST_CHUNK >> 20} MB")
        plist = found.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if missing := [f for f in filters if not h5py.h5z.filter_avail(f)]:
            raise self.fail(
                f"{name!r} is compressed by filter {missing[0]} of HDF5, which is not installed",
                remedy="write it with another, for instance by h5repack -f GZIP=1",
            )
        if found.size * found.dtype.itemsize > _MOST_COMPRESSED * self._n_bytes + _LITTLE:
            raise self.fail(f"{name!r} claims {len(found):,} rows, for which the file is too small")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset of any type; empty if it does not exist."""
        import h5py

        found = self._object(name)
        return tuple(found.shape) if isinstance(found, h5py.Dataset) and found.shape else ()

    def columns(self, name: str, default: tuple[str, ...]) -> list[str]:
        """Names of the columns of a dataset, from an attribute or in the default order."""
        dataset = self.dataset(name)
        width = int(dataset.shape[-1]) if len(dataset.shape) else 0
        if width > _MOST_COLUMNS:
            raise self.fail(f"{name!r} has {width} columns")
        try:
            for key in ("properties", name.rsplit("/", 1)[-1]):
                if key in dataset.attrs:
                    found = np.ravel(dataset.attrs[key]).tolist()
                    found = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n)
                             for n in found]  # fmt: skip
                    if len(found) != width or len(set(found)) < width:
                        raise self.fail(f"{name!r} has {width} columns and {len(found)} names")
                    return found
        except InputError:
            raise
        except Exception as error:
            raise self.fail(f"names of columns of {name!r} are damaged ({_line(error)})") from error
        if width < len(default):
            raise self.fail(f"{name!r} has {width} columns and no names for them")
        return [*default, *(f"weight{k}" for k in range(1, width - len(default) + 1))]

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows of a dataset as float64."""
        dataset = self.dataset(name)
        try:
            found = _compressed_rows(dataset, start, stop)
            if found is None:
                found = np.asarray(dataset[start:stop], dtype=np.float64)
        except Exception as error:
            raise self.fail(f"{name!r} is damaged ({_line(error)})") from error
        return found

    def text(self, name: str) -> str:
        """A string; InputError for any other type."""
        import h5py

        found = self._object(name)
        if not isinstance(found, h5py.Dataset) or found.shape != ():
            raise self.fail(f"has no text {name!r}")
        try:
            value = found.asstr()[()]
        except Exception as error:
            raise self.fail(f"text {name!r} is damaged ({_line(error)})") from error
        if len(value) > _LONGEST_TEXT:
            raise self.fail(f"text {name!r} is too long")
        return str(value)

    def texts(self, name: str, start: int, stop: int, width: int) -> npt.NDArray[Any]:
        """(rows, width) strings."""
        found = self._object(name)
        try:
            rows = found.asstr()[start:stop]
            if rows.shape != (stop - start, width):
                raise ValueError(f"shape {rows.shape}")
            return np.asarray(rows.astype(str))
        except Exception as error:
            raise self.fail(f"{name!r} is damaged ({_line(error)})") from error


def _compressed_rows(dataset: Any, start: int, stop: int) -> Floats | None:
    """Rows of a dataset whose chunks are whole rows compressed with deflate; None for others.

    ISA-L decompresses about three times as fast as HDF5 does.
    """
    plain = (
        dataset.compression == "gzip"
        and not (dataset.shuffle or dataset.fletcher32 or dataset.scaleoffset)
        and dataset.dtype == np.dtype("<f8")
        and len(dataset.shape) == 2
        and dataset.chunks[1] == dataset.shape[1]
    )
    if not plain or stop <= start:
        return None
    height, width = dataset.chunks
    found = np.empty((stop - start, width))
    for first in range(start // height * height, stop, height):
        low, high = max(first, start), min(first + height, stop)
        # rows that were never written are fill values, and have no chunk
        info = dataset.id.get_chunk_info_by_coord((first, 0))
        if info.size == 0 or info.byte_offset is None:
            found[low - start : high - start] = dataset.fillvalue
            continue
        mask, packed = dataset.id.read_direct_chunk((first, 0))
        size = height * width * 8
        chunk = packed if mask else isal_zlib.decompressobj().decompress(packed, size + 1)
        if len(chunk) != size:
            raise ValueError(f"a chunk has {len(chunk)} bytes instead of {size}")
        table = np.frombuffer(chunk, dtype="<f8").reshape(height, width)
        found[low - start : high - start] = table[low - first : high - first]
    return found


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
