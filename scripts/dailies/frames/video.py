"""Videos, decoded once to lossless frames: RGB PNG of 8 bits, of 16 where the video has more."""

import logging
import shutil
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.frames import png

log = logging.getLogger(__name__)

MATRICES = {
    1: ("BT.709", Colorspace.ITU709, 0.2126, 0.0722),
    4: ("FCC", Colorspace.FCC, 0.30, 0.11),
    5: ("BT.601", Colorspace.ITU601, 0.299, 0.114),
    6: ("BT.601", Colorspace.ITU601, 0.299, 0.114),
    7: ("SMPTE 240M", Colorspace.SMPTE240M, 0.212, 0.087),
    9: ("BT.2020", Colorspace.BT2020, 0.2627, 0.0593),
}
"""By their code in ITU-T H.273: name, FFmpeg's name, weights of red and blue in luma."""

UNTAGGED, FULL = 2, ColorRange.JPEG

HIGH_DEFINITION = 720
"""Lines from which on an untagged video is taken for BT.709, as players do."""

EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

ORDINARY = {1, 2, 4, 5, 6, 13, 14, 15}
"""Primaries and transfers, by their code in H.273, that a viewer shows as any untagged picture."""

MATTES = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose alpha is a second picture in the container -> the decoder that reads it; FFmpeg's own does not."""

LEADING = {"mpeg1video", "mpeg2video", "hevc"}
"""Codecs in which frames at the beginning may need one that was cut off, and that FFmpeg then leaves out in silence."""

MASTERING = struct.Struct("20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue and white, least and most light; what is known."""

LIGHT_LEVEL = struct.Struct("2I")
"""FFmpeg's AVContentLightMetadata: the most light of a pixel, and of a frame in the mean, in cd/m²."""


@dataclass(frozen=True)
class Clip:
    """The decoded frames of a video."""

    frames: int
    fps: float | None


@dataclass(frozen=True)
class Coding:
    """How a frame's values become RGB."""

    matrix: int
    """Code in ITU-T H.273."""
    full: bool
    """Whether values go from 0 to the largest code, and not from 16 to 235 (of 255)."""
    assumed: tuple[str, ...] = ()
    """What the video does not say, in words."""


def decode(path: Path, folder: Path, *, threads: int = 4) -> Clip:
    """Write every frame of a video to ``folder``, which is replaced: ``{stem}_{number:06d}.png``, from 0.

    A frame is taken once, in the order of showing, whatever its duration; interlaced frames stay woven as they are
    stored; those that are tagged as turned or mirrored are so. Raises SequenceError when the video cannot be read, is
    damaged or ends early.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for leftover in (unfinished, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # a bare name with a colon would be taken for an address
    with _naming(path), av.open(f"file:{path}") as container:
        stream = _stream(container, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        count = 0
        pending: deque[Future] = deque()
        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            for count, (frame, matte) in enumerate(_frames(container, stream, path), start=1):
                if count == 1:
                    _describe(path, stream, frame)
                target = unfinished / f"{path.stem}_{count - 1:06d}.png"
                pending.append(pool.submit(_write, frame, matte, aspect, target))
                if len(pending) > 2 * threads:
                    pending.popleft().result()
            for future in pending:
                future.result()
        if not count:
            raise SequenceError("video.no_frame", f"video {path.name} holds no frame")
        rate = stream.average_rate or (stream.guessed_rate if count > 1 else None)
    unfinished.replace(folder)
    return Clip(count, float(rate) if rate else None)


def coding(frame: av.VideoFrame) -> Coding:
    """Give what a frame is tagged with, or what is assumed where it is not tagged: the size decides on the matrix."""
    matrix, assumed = frame.colorspace, []
    if frame.format.name.startswith("xyz"):
        raise SequenceError("video.unsupported_colour", "the video's colours are XYZ, as in a DCP; convert it first")
    if frame.format.is_rgb or frame.format.has_palette:
        return Coding(0, True)
    if len(frame.format.components) < 3:
        return Coding(0, frame.color_range != ColorRange.MPEG)
    if matrix in {0, UNTAGGED}:
        matrix = 1 if frame.height >= HIGH_DEFINITION else 6
        assumed.append(f"matrix not tagged, {MATRICES[matrix][0]} by its size")
    if matrix not in MATRICES:
        raise SequenceError(
            "video.unsupported_colour", f"the video's colours are coded by matrix {matrix} of H.273; convert it first"
        )
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    if not frame.color_range and not full:
        assumed.append("range not tagged, taken as limited")
    return Coding(int(matrix), full, tuple(assumed))


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """Give a frame as ``(height, width, channels)``: uint8, or uint16 from 0 to 65535 where it has more than 8 bits.

    Grey stays one channel, alpha is the last. Rounded to the nearest by the matrices of ITU-T H.273.
    """
    components = frame.format.components
    deep = max(component.bits for component in components) > 8
    alpha = any(component.is_alpha for component in components)
    how = coding(frame)
    if how.matrix == 0:
        grey = len(components) == 1 and not frame.format.has_palette
        name = ("gray16le" if deep else "gray") if grey else ("rgb" if not alpha else "rgba")
        name += "" if grey else (("48le" if not alpha else "64le") if deep else ("24" if not alpha else ""))
        pixels = _reformatted(frame, name, Colorspace.ITU709, source=FULL, target=FULL).to_ndarray()
        pixels = pixels[:, :, None] if grey else pixels
        return pixels if how.full else _stretched(pixels, bits=components[0].bits)
    space = MATRICES[how.matrix][1]
    if not deep:
        source = FULL if how.full else ColorRange.MPEG
        return _reformatted(frame, "rgba" if alpha else "rgb24", space, source=source, target=FULL).to_ndarray()
    # FFmpeg makes 65280 of limited white in 16 bits: it only brings chroma to full size here
    name = "yuva444p16le" if alpha else "yuv444p16le"
    planes = _planes(_reformatted(frame, name, space, source=ColorRange.MPEG, target=ColorRange.MPEG))
    return _matrixed(planes, how, bits=max(component.bits for component in components))


def standing(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """Say how a frame stands as it was shot: whether its sides change places, and which way its rows and columns go.

    The way is a step, 1 or -1. ISO/IEC 14496-12 has a matrix for it: x' = ax + cy, y' = bx + dy.
    """
    told = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = struct.unpack_from("5i", bytes(told)) if told else (1, 0, 0, 0, 1)
    changed = abs(b) > abs(a)
    across, down = (c, b) if changed else (a, d)
    return changed, -1 if down < 0 else 1, -1 if across < 0 else 1


def light(frame: av.VideoFrame) -> list[bytes]:
    """Return the PNG chunks that say what a frame's HDR10 metadata do: of the display it was graded on, of its light.

    https://www.w3.org/TR/png-3/#mDCV-chunk, #cLLI-chunk
    """
    found = []
    if told := frame.side_data.get("MASTERING_DISPLAY_METADATA"):
        numbers = MASTERING.unpack_from(bytes(told))
        pairs = zip(numbers[:20:2], numbers[1:20:2], strict=True)
        *points, least, most = (Fraction(over, under or 1) for over, under in pairs)
        if all(numbers[20:]) and least < most:
            coded = [round(point * 50_000) for point in points]
            coded += [round(each * 10_000) for each in (most, least)]
            found.append(png.chunk("mDCV", struct.pack(">8H2I", *coded)))
    if told := frame.side_data.get("CONTENT_LIGHT_LEVEL"):
        levels = LIGHT_LEVEL.unpack_from(bytes(told))
        if any(levels):
            found.append(png.chunk("cLLI", struct.pack(">2I", *(10_000 * level for level in levels))))
    return found


def _reformatted(
    frame: av.VideoFrame, name: str, space: Colorspace, *, source: ColorRange, target: ColorRange
) -> av.VideoFrame:
    return frame.reformat(
        format=name,
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range=source,
        dst_color_range=target,
        interpolation=EXACT,
        threads=1,
    )


def _stretched(pixels: np.ndarray, *, bits: int) -> np.ndarray:
    """Turn grey of limited range, of ``bits`` before it was expanded, to all of the range; alpha has it already."""
    largest, step = np.iinfo(pixels.dtype).max, 2 ** (bits - 8)
    codes = pixels[:, :, :3] * np.float32((2**bits - 1) / largest)
    grey = np.rint(np.clip((codes - 16 * step) / (219 * step), 0, 1) * np.float32(largest)).astype(pixels.dtype)
    return np.concatenate([grey, pixels[:, :, 3:]], axis=2)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    return [
        np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[: frame.height, : frame.width]
        for plane in frame.planes
    ]


def _matrixed(planes: list[np.ndarray], how: Coding, *, bits: int) -> np.ndarray:
    """Turn Y'CbCr in the upper ``bits`` of 16, and alpha after it, to RGB in all of the 16 bits."""
    _, _, red, blue = MATRICES[how.matrix]
    largest = np.float32((2**bits - 1) << (16 - bits))
    luma = planes[0] / largest if how.full else (planes[0] - np.float32(16 * 256)) / np.float32(219 * 256)
    u, v = ((plane - np.float32(32768)) / (largest if how.full else np.float32(224 * 256)) for plane in planes[1:3])
    result = np.empty((*luma.shape, len(planes)), np.uint16)
    green = 1 - red - blue
    channels = (
        luma + np.float32(2 * (1 - red)) * v,
        luma - np.float32(2 * red * (1 - red) / green) * v - np.float32(2 * blue * (1 - blue) / green) * u,
        luma + np.float32(2 * (1 - blue)) * u,
    )
    for index, channel in enumerate(channels):
        np.rint(np.clip(channel, 0, 1) * np.float32(65535), out=result[:, :, index], casting="unsafe")
    if len(planes) == 4:
        result[:, :, 3] = planes[3]
    return result


def _write(frame: av.VideoFrame, matte: av.VideoFrame | None, aspect: Fraction, target: Path) -> None:
    pixels = rgb(matte or frame)
    changed, down, across = standing(frame)
    if changed:
        pixels, aspect = pixels.transpose(1, 0, 2), 1 / aspect
    pixels = pixels[::down, ::across]
    labels = []
    if aspect != 1:
        labels.append(png.chunk("pHYs", png.aspect(aspect)))
    tags = (frame.color_primaries, frame.color_trc)
    if not set(tags) <= ORDINARY:
        labels += [png.chunk("cICP", bytes([*tags, 0, 1])), *light(frame)]
    files.write_bytes(target, png.encode(pixels, carried=labels))


def _stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not streams:
        raise SequenceError("video.no_video", f"{path.name} holds no video")
    if streams[0].codec_context is None:
        raise SequenceError(
            "video.unknown_codec", f"video {path.name} cannot be read: FFmpeg does not know how it is coded"
        )
    if len(streams) > 1:
        log.warning("%s holds %d videos; the first is taken", path.name, len(streams))
    streams[0].thread_type = "AUTO"
    streams[0].codec_context.options = {"err_detect": "explode"}  # else a damaged frame is patched up
    return streams[0]


class _Mattes:
    """The frames of a video whose alpha is a second picture in the container, decoded once more, with it."""

    def __init__(self, stream: av.VideoStream, path: Path) -> None:
        self._name = path.name
        self._waiting: deque[av.VideoFrame] = deque()
        self._found = False
        self._decoder: av.VideoCodecContext | None = None
        tags = {name.lower(): value for name, value in stream.metadata.items()}
        self._expected = tags.get("alpha_mode") == "1"
        if self._expected and (name := MATTES.get(stream.codec_context.name)):
            with suppress(av.error.FFmpegError, ValueError):  # FFmpeg was built without it
                self._decoder = av.CodecContext.create(name, "r")

    def feed(self, packet: av.Packet) -> None:
        if self._decoder:
            self._waiting.extend(self._decoder.decode(packet if packet.size else None))

    def next(self, frame: av.VideoFrame) -> av.VideoFrame | None:
        """Return a frame with its alpha; None where it has none."""
        matte = self._waiting.popleft() if self._waiting else None
        if matte is None or not any(component.is_alpha for component in matte.format.components):
            return None
        self._found = True
        matte.colorspace, matte.color_range = frame.colorspace, frame.color_range
        return matte

    def report(self) -> None:
        if self._expected and not self._found:
            log.warning("%s has alpha, which cannot be decoded here: its frames are rendered without", self._name)


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[tuple[av.VideoFrame, av.VideoFrame | None]]:
    """Give all frames in the order of showing, each beside itself with alpha where that is a second picture.

    Raises SequenceError where a frame is damaged or missing.
    """
    mattes = _Mattes(stream, path)
    packets = count = end = longest = 0
    begins = False
    durations = set()
    last = None
    for packet in container.demux(stream):
        begins |= packet.is_keyframe and not packets
        packets += packet.size > 0
        try:
            mattes.feed(packet)
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            raise SequenceError(
                "video.damaged", f"video {path.name} is damaged at frame {count}: {error.strerror}"
            ) from error
        for frame in decoded:
            if packet.is_corrupt or frame.is_corrupt:
                raise SequenceError("video.damaged", f"video {path.name} is damaged at frame {count}")
            count += 1
            if frame.pts is not None and last is not None:
                durations.add(frame.pts - last)
                longest = max(durations)
            last = frame.pts
            yield frame, mattes.next(frame)
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is not None:
            end = max(end, shown + (packet.duration or longest))
    if not begins and count < packets:
        lost = f"{packets - count} of its {packets} frames depend on a frame that is not there"
        raise SequenceError("video.no_beginning", f"video {path.name} is missing its beginning: {lost}")
    if 0 < packets - count < count and stream.codec_context.name in LEADING:
        lost = f"{packets - count} of its {packets} frames need one before its beginning"
        log.warning("%s begins within what it was cut from: %s, and are left out", path.name, lost)
    due, found = _due(container, stream, packets=packets, end=end)
    if found < due:
        raise SequenceError("video.truncated", f"video {path.name} is truncated: it ends after {count} of {due} frames")
    varies = longest - min(durations, default=0) > 1
    told, seconds = _told_seconds(stream), float(end * stream.time_base)
    # how long the last frame of a variable rate is shown may not be written down
    if told and told - seconds > (1 if varies or not longest else float(longest * stream.time_base) / 2):
        raise SequenceError(
            "video.truncated", f"video {path.name} is truncated: it ends after {seconds:.1f} of {told:.1f} seconds"
        )
    if not (due or told):
        log.info("%s does not say how many frames it has: were its end missing, nobody could tell", path.name)
    mattes.report()
    if varies:
        log.warning("%s has a variable frame rate: every frame is taken once, in order", path.name)


def _due(container: av.container.InputContainer, stream: av.VideoStream, *, packets: int, end: int) -> tuple[int, int]:
    """Give how many frames a file tells of, and how many of them are there; ``end`` is where time ends."""
    if "mov" in container.format.name:
        return len(stream.index_entries), packets  # those that an edit list hides are in neither
    if container.format.name == "mxf":
        return stream.duration or 0, packets
    return stream.frames, end  # in an AVI, where time is counted in frames, and one that was dropped has no packet


def _told_seconds(stream: av.VideoStream) -> float | None:
    """Give the duration that a Matroska file writes down for a stream, in seconds."""
    parts = stream.metadata.get("DURATION", "").split(":")
    return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if len(parts) == 3 else None


def _describe(path: Path, stream: av.VideoStream, frame: av.VideoFrame) -> None:
    how = coding(frame)
    rate = f"{float(stream.average_rate):.6g} fps" if stream.average_rate else "unknown rate"
    kind = f"{stream.codec_context.name} {frame.format.name} {frame.width}×{frame.height}, {rate}"
    if how.matrix:
        kind += f", {MATRICES[how.matrix][0]}, {'full' if how.full else 'limited'} range"
    log.info("%s: %s", path.name, ", ".join([kind, *how.assumed]))
    if frame.interlaced_frame:
        log.warning("%s is interlaced: its frames keep both fields woven, as they are stored", path.name)
    if standing(frame) != (False, 1, 1):
        log.info("%s is tagged as turned or mirrored, and its frames are", path.name)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what FFmpeg says of a bad video into a SequenceError that names it."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise SequenceError("video.unreadable", f"video {path.name} cannot be read: {error.strerror}") from error
