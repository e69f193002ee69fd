"""Zip archives of torch: no member is unpacked before all of them together were found to be of a likely size."""

import io
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dailies.files import SLACK, most_unpacked
from dailies.programs.program import Bad, shown

LARGEST = 16 * 2**30
"""The most bytes that a file may declare to hold once unpacked."""


class Archive:
    """A zip file whose declared sizes have been checked, its members by their short names."""

    def __init__(self, file: Path | io.BytesIO) -> None:
        self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        declared, most = sum(info.file_size for info in infos), min(LARGEST, most_unpacked(size))
        if declared > most:
            raise Bad(f"{size:,} bytes that declare to hold {declared:,} are no model; at most {most:,} would be read")
        # not only equal ones: torch's reader does not tell upper from lower case
        names = Counter(info.filename.lower() for info in infos)
        if names and names.most_common(1)[0][1] > 1:
            raise Bad(f"the archive holds '{shown(names.most_common(1)[0][0])}' more than once")
        self.sizes = {short(info.filename): info.file_size for info in infos}
        """Bytes of each member."""
        self._names = {short(info.filename): info.filename for info in infos}

    def read(self, name: str) -> bytes:
        if name not in self._names:
            raise Bad(f"the archive lacks '{shown(name)}'")
        return self._zip.read(self._names[name])


def short(name: str) -> str:
    """The name of a zip's member without the folder that torch puts all of them in."""
    return name.partition("/")[2] or name


def check_size(shape: Sequence[int]) -> None:
    """Raise Bad for the shape of a tensor that would not fit into memory."""
    if math.prod(map(abs, shape)) > LARGEST // 4:
        raise Bad(f"the program makes a tensor of the shape {shown(str(tuple(shape)), 80)}")


def check_view(shape: Sequence[int], strides: Sequence[int], offset: int, count: int, itemsize: int) -> None:
    """Raise Bad unless a view of ``count`` elements stays inside them, and is not much larger than they are."""
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    inside = min([offset, *shape, *strides]) >= 0 and (last < count or 0 in shape)
    if not inside or math.prod(shape) * itemsize > SLACK + count * itemsize:
        raise Bad(
            f"a tensor in the file declares the shape {shown(str(tuple(shape)), 80)}, "
            f"its storage has {count:,} elements"
        )
