"""What a file in a run probably holds, judged by its name and its first bytes."""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from dailies.core.files import sibling


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


BEST, LAST, OTHER, AUXILIARY = range(4)
"""The ranks of files by name; ``AUXILIARY`` files hold no network to render with, judging by their names."""

BEST_NAME = re.compile(r"best", re.IGNORECASE)
LAST_NAME = re.compile(r"(?<![a-z])(last|latest|final)", re.IGNORECASE)

WORDS = re.compile(r"\d+D(?![A-Za-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""The words of a name: ``40000_optimizerG`` is 40000, optimizer and G; ``unet3D`` is unet and 3D."""

TRAINING = _set(
    "optim optimizer optimiser optims optimizers optimisers sched scheduler schedulers scaler scalers gradscaler rng"
)
"""Words in the names of files that hold the state of the training, not of a network."""

TRAINING_PAIRS = frozenset(
    {("training", "state"), ("training", "states"), ("training", "args"), ("train", "state"), ("trainer", "state")}
    | {("random", "state"), ("random", "states")}
)

DISCRIMINATOR = _set("discriminator discriminators discr critic critics")
"""Words in the names of discriminators."""

GENERATOR_WORDS = {"d": "g", "dis": "gen", "disc": "gen"}
"""Short words for a discriminator, and the matching word for its generator."""

OWNERS = frozenset({"net"})
"""Words after which a single D means the discriminator: ``net_d``, ``netD``."""

MEANINGLESS = _set("best last latest final epoch ep iter iters step steps checkpoint ckpt ema")
"""Words that do not identify a network."""

LOSS = _set("vgg lpips alexnet inception perceptual")
"""First words in the names of networks that only compute a loss."""

LOSS_OTHERS = _set("net network loss feature features weights pretrained normalised normalized conv bn v owt vgg alex")
"""Other words in the names of such networks."""

AVERAGED = _set("ema swa avg averaged")
"""Words in the names of files that hold averaged weights."""

GENERIC = _set("model net network weights params g e state dict")
"""Words that may differ between the names of averaged and of plain weights."""

NO_MODEL = _set(
    # text and tables
    "txt log out err csv tsv json jsonl yaml yml toml ini cfg conf md rst html htm xml tex srt sql lock env "
    "py pyc pyi ipynb sh bat ps1 js css c cc cpp cu h hpp cuh rs go java jar so dll dylib exe whl egg diff patch "
    # pictures, sound, video, documents
    "png jpg jpeg bmp tif tiff exr dpx webp gif svg ico heic avif hdr psd raw cr2 dng mp4 mov mkv avi mxf webm m4v "
    "wav mp3 flac ogg aac pdf ps eps doc docx ppt pptx xls xlsx odt cube lut otio usd usda usdc obj stl ply glb fbx "
    # arrays and archives
    "npz npy mat parquet arrow feather orc avro db sqlite sqlite3 lmdb mdb zip gz tgz bz2 xz zst 7z rar lz4 "
    # networks of other frameworks, and their companions
    "h5 hdf5 keras pb pbtxt tflite mlmodel mlpackage gguf ggml engine trt plan caffemodel prototxt pdmodel pdiparams "
    "joblib ubj dill cbm data index meta dvc profraw prof trace ticket sig sha256 md5 tmp part lnk url"
)
"""Endings of files that hold no network to render with."""

NO_MODEL_NAMES = re.compile(
    r"\..*|MLmodel|.*tfevents.*|(README|LICEN[CS]E|NOTICE|AUTHORS|CHANGELOG|VERSION|Makefile|Dockerfile|Procfile|Pipfile|"
    r"requirements|logs?|stdout|stderr|output|nohup|hosts?|core|core\.\d+|commit|git[-_]?\w*|command|cmd|args|argv|config|"
    r"_SUCCESS|_metadata|COMMIT_EDITMSG)",
    re.IGNORECASE,
)
"""Names of files that hold no network although their ending, if any, does not exclude it."""

LEGACY_TAR = (b"sys_info", b"pickle", b"tensors", b"storages", b"././@PaxHeader", b"PaxHeader")
"""The first bytes of the tar files that torch wrote in 2016."""

LEGACY_NUMBER = b"119547037146038801333356"
"""The magic number of torch's files before the zip format, as a text pickle shows it."""


def words(text: str) -> list[str]:
    """Split a name into its words and numbers."""
    return WORDS.findall(text)


def rank(path: str, others: Collection[str] = ()) -> int:
    """Rank a file by its name; ``others`` holds the ``family`` of every file of the run.

    Optimizers, schedulers and the like, discriminators, and networks that only compute a loss are ``AUXILIARY``.
    """
    if is_auxiliary(path, others):
        return AUXILIARY
    return named_rank(path)


def named_rank(path: str) -> int:
    """Rank a file by the word for best or last in its name alone."""
    name = PurePosixPath(path).name
    return BEST if BEST_NAME.search(name) else LAST if LAST_NAME.search(name) else OTHER


def is_auxiliary(path: str, others: Collection[str] = ()) -> bool:
    """Return whether a path names the state of a training, a discriminator, or a network that only computes a loss."""
    place = PurePosixPath(path)
    stem = place.name.partition(".")[0] if place.name.partition(".")[0] else place.name
    found = words(stem)
    return (
        _is_training(found)
        or _is_discriminator(found, place, others)
        or _is_loss(stem)
        or any(_is_auxiliary_folder(part, place, others) for part in place.parts[:-1])
    )


def _is_training(found: Sequence[str]) -> bool:
    low = [word.lower() for word in found]
    pairs = pairwise(low)
    return bool(TRAINING & {*low}) or bool(TRAINING_PAIRS & {*pairs}) or _is_opt(low)


def _is_opt(low: Sequence[str]) -> bool:
    return bool(low) and low[0] == "opt" and all(word.isdecimal() or word in {"g", "d"} for word in low[1:])


def _is_discriminator(found: Sequence[str], place: PurePosixPath, others: Collection[str]) -> bool:
    low = [word.lower() for word in found]
    if DISCRIMINATOR & {*low}:
        return True
    for number, word in enumerate(low):
        if word not in GENERATOR_WORDS:
            continue
        beside = [other for at, other in enumerate(low) if at != number]
        is_alone = all(other.isdecimal() or other in MEANINGLESS or other in OWNERS for other in beside)
        if word == "d" and number and low[number - 1] in OWNERS:
            return True
        if is_alone and (found[number] == "D" or word == "disc") and (beside or word == "disc" or others):
            return True
        if _generator_family(place, found, number) in others:
            return True
    return False


def is_discriminator_key(key: str) -> bool:
    """Return whether a key inside a file names a discriminator: ``netD``, ``D_A``, ``critic``; not ``unet_2d``."""
    low = [word.lower() for word in words(key)]
    short = any(word in GENERATOR_WORDS and not before.isdecimal() for before, word in pairwise(["", *low]))
    return short or bool(DISCRIMINATOR & {*low})


def _generator_family(place: PurePosixPath, found: Sequence[str], number: int) -> str:
    """Return the family of the file that would hold the generator of a discriminator."""
    word = found[number]
    instead = GENERATOR_WORDS[word.lower()]
    instead = instead.upper() if word.isupper() else instead.capitalize() if word[:1].isupper() else instead
    before = "".join(f"{re.escape(each)}[^A-Za-z0-9]*" for each in found[:number])
    name = re.sub(rf"^([^A-Za-z0-9]*{before}){re.escape(word)}", lambda match: match[1] + instead, place.name, count=1)
    return family(sibling(str(place), name))


def _is_loss(stem: str) -> bool:
    low = [word.lower() for word in words(re.sub(r"-[0-9a-f]{8}$", "", stem))]
    rest = {word for word in low[1:] if not word.isdecimal()}
    return bool(low) and low[0] in LOSS and rest <= LOSS_OTHERS


def _is_auxiliary_folder(part: str, place: PurePosixPath, others: Collection[str]) -> bool:
    low = tuple(word.lower() for word in words(part))
    if len(low) == 1 and low[0] in GENERATOR_WORDS:
        parts = [GENERATOR_WORDS[low[0]] if each == part else each.lower() for each in place.parts]
        return family("/".join(parts)) in {other.lower() for other in others}
    return (len(low) == 1 and low[0] in TRAINING | DISCRIMINATOR) or low in TRAINING_PAIRS or low == ("net", "d")


def family(path: str) -> str:
    """Return a path without its numbers, so that files of different epochs or steps share a family."""
    return re.sub(r"\d+", "#", path)


def may_hold_model(path: str) -> bool:
    """Return whether a file with an unknown ending may hold a model, so that its content has to be checked."""
    name = PurePosixPath(path).name
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return ending not in NO_MODEL and not NO_MODEL_NAMES.fullmatch(name)


def begins_like_model(start: bytes) -> bool:
    """Return whether a file may hold a network, by its first 512 bytes: zip, pickle, safetensors, ONNX, torch's tar."""
    if start.startswith(b"PK\x03\x04") or re.match(rb"\x80[\x00-\x05]", start) or LEGACY_NUMBER in start[:40]:
        return True
    if re.match(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]", start):
        return True
    if start[257:262] == b"ustar" or start[:8].rstrip(b"\0") in LEGACY_TAR:
        return start.startswith(LEGACY_TAR)
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100 * 2**20


def averaged_first(paths: Sequence[str]) -> list[str]:
    """Move averaged weights before the plain ones of the same step and folder; keep the order otherwise."""
    found = list(paths)
    for path in paths:
        if not _is_averaged(path, paths):
            continue
        place = found.index(path)
        before = (at for at, other in enumerate(found[:place]) if _is_plain_of(other, path))
        if (at := next(before, None)) is not None:
            found.insert(at, found.pop(place))
    return found


def _is_averaged(path: str, paths: Sequence[str]) -> bool:
    low = {word.lower() for word in words(_stem(path))}
    generator = re.sub(r"^(\d+)_E(?=\.)", r"\1_G", PurePosixPath(path).name)
    return bool(low & AVERAGED) or (generator != PurePosixPath(path).name and sibling(path, generator) in paths)


def _is_plain_of(plain: str, averaged: str) -> bool:
    if PurePosixPath(plain).parent != PurePosixPath(averaged).parent:
        return False
    of_plain, of_averaged = ([word.lower() for word in words(_stem(path))] for path in (plain, averaged))
    if {*of_plain} & AVERAGED:
        return False
    steps = [[word for word in low if word.isdecimal()][-1:] for low in (of_plain, of_averaged)]
    names = [{*low} - AVERAGED - GENERIC - {*filter(str.isdecimal, low)} for low in (of_plain, of_averaged)]
    return steps[0] == steps[1] and (names[0] <= names[1] or names[1] <= names[0])


def _stem(path: str) -> str:
    """Return the name of a file without its ending and without the decay of an average, such as 0.999."""
    return re.sub(r"(?<!\d)0?\.9\d*(?=\D)", "", re.sub(r"\.[A-Za-z]\w*$", "", PurePosixPath(path).name) + "_")
