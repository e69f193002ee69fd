import argparse
import collections
import contextlib
import dataclasses
import datetime
import enum
import io
import os
import pathlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
from dailies.models.inert import Inert, module_tensors, plain
from dailies.models.torch_files import Damaged, NotWrittenByTorch, read
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
STATE = NETWORK.state_dict()


class Kind(enum.Enum):
    SMALL = "small"


class Attributes(dict):
    """A dict of a trainer's own."""


class Words(list):
    pass


class Name(str):
    pass


@dataclasses.dataclass
class Options:
    width: int = 1


class Fields:
    """A configuration object that keeps what it holds in a dict of its own, as ml_collections' ConfigDict does."""

    def __init__(self, **fields):
        self._fields, self._locked = fields, True


PLAIN = {
    "args": (argparse.Namespace(lr=0.1, blocks=[1, 2]), {"lr": 0.1, "blocks": [1, 2]}),
    "version": (torch.__version__, str(torch.__version__)),
    "losses": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "last": (collections.deque([1.0]), [1.0]),
    "counts": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "kind": (Kind.SMALL, "small"),
    "attributes": (Attributes(x=1), {"x": 1}),
    "words": (Words([1, 2]), [1, 2]),
    "name": (Name("hey"), "hey"),
    "options": (Options(5), {"width": 5}),
    "number": (np.float64(0.5), 0.5),
    "user": (collections.UserDict(x=1), {"x": 1}),
    "fields": (Fields(width=5), {"width": 5}),
    "set": ({1, 2}, {1, 2}),
    "bytes": (b"\xff\x00", b"\xff\x00"),
    "large": (2**70, 2**70),
    "negative": (-3, -3),
    "complex": (1 + 2j, 1 + 2j),
    "path": (pathlib.PurePosixPath("a/b"), pathlib.PurePosixPath("a/b")),
    "dtype": (torch.float16, torch.float16),
    "size": (torch.Size([1, 2]), (1, 2)),
    "text": ("\u00e9", "\u00e9"),
    "nothing": (None, None),
}
"""What stands beside the weights, and what it is read as."""

FOREIGN = {
    "when": datetime.datetime(2026, 1, 1),
    "criterion": nn.L1Loss(),
    "optimizer": torch.optim.Adam,
    "crop": slice(0, 9),
    "objects": np.array([1.0, None], dtype=object),
    "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
}

TENSORS = {
    "half": torch.arange(3).half(),
    "brain": torch.ones(2, dtype=torch.bfloat16),
    "byte": torch.arange(3, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
    "part": torch.arange(10.0)[3:5],
    "parameter": nn.Parameter(torch.ones(2)),
    "empty": torch.empty(0),
    "scalar": torch.tensor(2.5),
    "eighth": torch.ones(2).to(torch.float8_e4m3fn),
}


@pytest.fixture
def saved(tmp_path):
    """Save an object as torch does, and read it inertly."""

    def saved_and_read(content, **saving):
        torch.save(content, tmp_path / "a.pth", **saving)
        return read(tmp_path / "a.pth")

    return saved_and_read


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_and_format_is_read(saved, zipped, protocol):
    beside = {name: given for name, (given, _) in PLAIN.items()}
    content = {"state_dict": STATE, **beside, **FOREIGN, **TENSORS, "network": NETWORK}

    reading = saved(content, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)

    found = reading.content
    assert all(torch.equal(found["state_dict"][key], STATE[key]) for key in STATE)
    assert found["state_dict"]._metadata["1"]["version"] == 2
    for name, values in TENSORS.items():
        assert found[name].dtype == values.dtype
        assert torch.equal(found[name].float(), values.float())
    assert {name: plain(found[name]) for name in PLAIN} == {name: value for name, (_, value) in PLAIN.items()}
    assert all(isinstance(plain(found[name]), Inert) for name in FOREIGN)
    inside = dict(module_tensors(found["network"]))
    assert inside.keys() == STATE.keys()
    assert all(torch.equal(inside[key], STATE[key]) for key in STATE)
    assert "datetime.datetime" in reading.names
    assert not reading.blocked


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.arange(6, dtype=">i2").reshape(2, 3, order="F")])
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_are_read(saved, array, protocol):
    found = plain(saved({"a": array, "b": Kind.SMALL}, pickle_protocol=protocol).content)["a"]

    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_tensors_that_share_their_values_share_them(saved):
    weight = torch.zeros(3)

    found = saved({"a": weight, "b": weight, "c": Kind.SMALL}).content

    found["a"].add_(1)
    assert found["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("view", [torch._neg_view, torch.conj, lambda x: x.conj().imag])
def test_negated_and_conjugated_views_are_read(saved, zipped, view):
    values = view(torch.tensor([1 + 2j, 3 - 4j]))

    found = saved({"a": values, "b": Kind.SMALL}, _use_new_zipfile_serialization=zipped).content["a"]

    assert torch.equal(found.resolve_conj().resolve_neg(), values.resolve_conj().resolve_neg())


class Runs:
    """A pickle that leaves a mark on the disk when it is loaded, in one of several ways."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_no_function_in_a_file_is_called(tmp_path, saved):
    mark = tmp_path / "mark"
    ways = [
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(getattr, Runs(__import__, "os"), "system"),
        Runs(pathlib.Path.touch, pathlib.Path(mark)),
        Runs(open, str(mark), "w"),
    ]

    reading = saved({"state_dict": STATE, "ways": ways}, pickle_protocol=4)

    assert not mark.exists()
    assert set(reading.names) >= {"builtins.eval", "builtins.getattr", "builtins.__import__", "io.open"}
    assert reading.blocked == (f"{os.system.__module__}.system",)


def test_a_bare_pickle_is_read(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": torch.arange(3.0), "x": Kind.SMALL}))

    found = read(tmp_path / "a.pkl").content

    assert found["w"].tolist() == [0, 1, 2]
    assert plain(found["x"]) == "small"


def written_by_the_oldest_torch(path, values):
    """Write a dict of one tensor as torch did before 0.1.10: a tar of storages, tensors and a pickle."""

    class Refers(pickle.Pickler):
        def persistent_id(self, value):
            return 7 if isinstance(value, torch.Tensor) else None

    storages, tensors, whole = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(1, storages, 2)
    pickle.dump((3, "cpu", torch.FloatStorage), storages, 2)
    storages.write(struct.pack("<q", values.numel()) + values.numpy().tobytes())
    pickle.dump([], storages, 2)
    pickle.dump(1, tensors, 2)
    pickle.dump((7, 3, torch.FloatTensor), tensors, 2)
    sizes = struct.pack(f"<{2 * values.dim()}q", *values.shape, *values.stride())
    tensors.write(struct.pack("<ii", values.dim(), 0) + sizes + struct.pack("<q", 0))
    Refers(whole, 2).dump({"w": values})
    with tarfile.open(path, "w") as archive:
        for name, data in (("storages", storages), ("tensors", tensors), ("pickle", whole)):
            about = tarfile.TarInfo(name)
            about.size = len(data.getvalue())
            archive.addfile(about, io.BytesIO(data.getvalue()))


@pytest.mark.filterwarnings("ignore")
def test_the_oldest_format_is_read_as_torch_reads_it(tmp_path):
    values = torch.arange(6.0).reshape(2, 3)
    written_by_the_oldest_torch(tmp_path / "a.pth.tar", values)

    assert torch.equal(torch.load(tmp_path / "a.pth.tar", weights_only=False)["w"], values)
    assert torch.equal(read(tmp_path / "a.pth.tar").content["w"], values)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=5))
def test_damaged_files_are_read_or_refused(tmp_path_factory, zipped, flips):
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    torch.save({"state_dict": STATE, "kind": Kind.SMALL}, path, _use_new_zipfile_serialization=zipped)
    data = bytearray(path.read_bytes())
    for place, change in flips:
        data[int(place * len(data))] ^= change
    path.write_bytes(data)

    with contextlib.suppress(Damaged, NotWrittenByTorch, MemoryError):
        read(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_legacy_file_that_is_cut_short_is_damaged(tmp_path, part):
    torch.save({"state_dict": STATE}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: int(len(data) * part)])

    with pytest.raises(Damaged):
        read(tmp_path / "a.pth")
