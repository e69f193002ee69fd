"""Decoding of videos to lossless frames: RGB PNG with 8 bits per channel, or 16 if the video has more than 8."""

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
from typing import Any

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
"""Code in ITU-T H.273 -> name, FFmpeg's constant, weights of red and blue in luma."""

UNTAGGED, FULL = 2, ColorRange.JPEG

MIN_HD_LINES = 720
"""Lines from which an untagged video is assumed to be BT.709, as players do."""

EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Flags of FFmpeg's scaler for precise and reproducible conversion."""

SDR = {1, 2, 4, 5, 6, 13, 14, 15}
"""Codes in H.273 of primaries and transfers that a viewer shows like an untagged picture."""

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs that store alpha as a second stream in each packet -> decoder that reads it; FFmpeg's native one does not."""

DROPS_LEADING_FRAMES = {"mpeg1video", "mpeg2video", "hevc"}
"""Codecs whose first frames may depend on one that was cut off; FFmpeg then drops them silently."""

MASTERING_DISPLAY = struct.Struct("20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue, white; min, max luminance; flags of both."""

LIGHT_LEVEL = struct.Struct("2I")
"""FFmpeg's AVContentLightMetadata: MaxCLL (brightest pixel) and MaxFALL (brightest mean of a frame), in cd/m²."""

MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
"""Id of the element of a Matroska file that holds everything but the header."""


@dataclass(frozen=True)
class Clip:
    """The decoded frames of a video."""

    frames: int
    fps: float | None


@dataclass(frozen=True)
class ColourCoding:
    """How the values of a frame are converted to RGB."""

    matrix: int
    """Code in ITU-T H.273; 0 is RGB or grey."""
    full: bool
    """Whether values range from 0 to the largest code, rather than from 16 to 235 (of 255)."""
    assumed: tuple[str, ...] = ()
    """Descriptions of assumptions about properties that are not tagged."""


def decode(path: Path, folder: Path, *, threads: int = 4) -> Clip:
    """Write every frame of a video to ``folder``, which is replaced, as ``{stem}_{number:06d}.png``, from 0.

    Each frame is written once, in presentation order, whatever its duration. Interlaced frames are not deinterlaced.
    Frames that are tagged as rotated or mirrored are rotated or mirrored. Raises SequenceError if the video cannot be
    read, is damaged or is truncated.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for leftover in (unfinished, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # without "file:", a name with a colon would be parsed as a URL
    with _named_errors(path), av.open(f"file:{path}") as container:
        stream = _open_stream(container, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        count = 0
        pending: deque[Future] = deque()
        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            for count, (frame, with_alpha) in enumerate(_decode_frames(container, stream, path), start=1):
                if count == 1:
                    _log_description(path, stream, frame)
                target = unfinished / f"{path.stem}_{count - 1:06d}.png"
                pending.append(pool.submit(_write_frame, frame, with_alpha, aspect, target))
                if len(pending) > 2 * threads:
                    pending.popleft().result()
            for future in pending:
                future.result()
        if not count:
            raise SequenceError("video.no_frame", f"video {path.name} holds no frame")
        rate = stream.average_rate or (stream.guessed_rate if count > 1 else None)
    unfinished.replace(folder)
    return Clip(count, float(rate) if rate else None)


def colour_coding(frame: av.VideoFrame) -> ColourCoding:
    """Return the tagged colour coding of a frame; if the matrix is not tagged, it is assumed by the frame's height.

    Raises SequenceError if the coding is not supported.
    """
    matrix, assumed = frame.colorspace, []
    if frame.format.name.startswith("xyz"):
        raise SequenceError(
            "video.unsupported_colour", "the video's colours are XYZ, as in a DCP; convert it to RGB or Y'CbCr"
        )
    if frame.format.is_rgb or frame.format.has_palette:
        return ColourCoding(0, True)
    if len(frame.format.components) < 3:
        return ColourCoding(0, frame.color_range != ColorRange.MPEG)
    if matrix in {0, UNTAGGED}:
        matrix = 1 if frame.height >= MIN_HD_LINES else 6
        assumed.append(f"matrix not tagged, {MATRICES[matrix][0]} assumed by its size")
    if matrix not in MATRICES:
        raise SequenceError(
            "video.unsupported_colour",
            f"matrix {matrix} (ITU-T H.273) of the video's colours is not supported; convert it to BT.709",
        )
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    if not frame.color_range and not full:
        assumed.append("range not tagged, limited assumed")
    return ColourCoding(int(matrix), full, tuple(assumed))


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as ``(height, width, channels)``: uint8, or uint16 that fills 0 to 65535 if deeper than 8 bits.

    Grey stays one channel; alpha is the last channel. Values are converted with the matrices of ITU-T H.273 and rounded
    to the nearest. Raises SequenceError as ``colour_coding`` does.
    """
    components = frame.format.components
    deep = max(component.bits for component in components) > 8
    alpha = any(component.is_alpha for component in components)
    coding = colour_coding(frame)
    if coding.matrix == 0:
        grey = len(components) == 1 and not frame.format.has_palette
        name = ("gray16le" if deep else "gray") if grey else ("rgb" if not alpha else "rgba")
        name += "" if grey else (("48le" if not alpha else "64le") if deep else ("24" if not alpha else ""))
        pixels = _reformat(frame, name, Colorspace.ITU709, source=FULL, target=FULL).to_ndarray()
        pixels = pixels[:, :, None] if grey else pixels
        return pixels if coding.full else _expand_range(pixels, bits=components[0].bits)
    space = MATRICES[coding.matrix][1]
    if not deep:
        source = FULL if coding.full else ColorRange.MPEG
        return _reformat(frame, "rgba" if alpha else "rgb24", space, source=source, target=FULL).to_ndarray()
    # FFmpeg would convert 16-bit limited-range white to 65280, so it only upsamples chroma here
    name = "yuva444p16le" if alpha else "yuv444p16le"
    planes = _planes(_reformat(frame, name, space, source=ColorRange.MPEG, target=ColorRange.MPEG))
    return _matrix_to_rgb(planes, coding, bits=max(component.bits for component in components))


def orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """Return the tagged orientation of a frame: whether to transpose it, then the steps through its rows and columns.

    A step is 1 or -1. The display matrix of ISO/IEC 14496-12 defines it: x' = ax + cy, y' = bx + dy.
    """
    matrix = _side_data(frame, "DISPLAYMATRIX")
    a, b, _, c, d = struct.unpack_from("5i", matrix) if matrix else (1, 0, 0, 0, 1)
    transposed = abs(b) > abs(a)
    across, down = (c, b) if transposed else (a, d)
    return transposed, -1 if down < 0 else 1, -1 if across < 0 else 1


def hdr_chunks(frame: av.VideoFrame) -> list[bytes]:
    """Return the PNG chunks for a frame's HDR10 metadata: mastering display and content light level.

    https://www.w3.org/TR/png-3/#mDCV-chunk, #cLLI-chunk
    """
    found = []
    if display := _side_data(frame, "MASTERING_DISPLAY_METADATA"):
        numbers = MASTERING_DISPLAY.unpack_from(display)
        pairs = zip(numbers[:20:2], numbers[1:20:2], strict=True)
        *points, least, most = (Fraction(over, under or 1) for over, under in pairs)
        if all(numbers[20:]) and least < most:
            coded = [round(point * 50_000) for point in points]
            coded += [round(each * 10_000) for each in (most, least)]
            found.append(png.chunk("mDCV", struct.pack(">8H2I", *coded)))
    if content := _side_data(frame, "CONTENT_LIGHT_LEVEL"):
        levels = LIGHT_LEVEL.unpack_from(content)
        if any(levels):
            found.append(png.chunk("cLLI", struct.pack(">2I", *(10_000 * level for level in levels))))
    return found


def _side_data(frame: av.VideoFrame, kind: str) -> bytes:
    """Return side data of a frame; empty if it has none of this kind."""
    data: Any = frame.side_data.get(kind)
    return bytes(data) if data else b""


def _reformat(
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


def _expand_range(pixels: np.ndarray, *, bits: int) -> np.ndarray:
    """Expand grey from limited to full range; ``bits`` is its depth in the video. Alpha always has full range."""
    largest, step = np.iinfo(pixels.dtype).max, 2 ** (bits - 8)
    codes = pixels[:, :, :3] * np.float32((2**bits - 1) / largest)
    grey = np.rint(np.clip((codes - 16 * step) / (219 * step), 0, 1) * np.float32(largest)).astype(pixels.dtype)
    return np.concatenate([grey, pixels[:, :, 3:]], axis=2)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Return the planes of a 16-bit frame, ``(height, width)`` uint16."""
    planes: Any = frame.planes  # buffers, which the type stubs do not say
    return [
        np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[: frame.height, : frame.width]
        for plane in planes
    ]


def _matrix_to_rgb(planes: list[np.ndarray], coding: ColourCoding, *, bits: int) -> np.ndarray:
    """Convert Y'CbCr in the upper ``bits`` of 16, and optional alpha, to RGB that fills 0 to 65535."""
    _, _, red, blue = MATRICES[coding.matrix]
    largest = np.float32((2**bits - 1) << (16 - bits))
    luma = planes[0] / largest if coding.full else (planes[0] - np.float32(16 * 256)) / np.float32(219 * 256)
    u, v = ((plane - np.float32(32768)) / (largest if coding.full else np.float32(224 * 256)) for plane in planes[1:3])
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


def _write_frame(frame: av.VideoFrame, with_alpha: av.VideoFrame | None, aspect: Fraction, target: Path) -> None:
    pixels = to_rgb(with_alpha or frame)
    transposed, down, across = orientation(frame)
    if transposed:
        pixels, aspect = pixels.transpose(1, 0, 2), 1 / aspect
    pixels = pixels[::down, ::across]
    chunks = []
    if aspect != 1:
        chunks.append(png.chunk("pHYs", png.aspect(aspect)))
    tags = (frame.color_primaries, frame.color_trc)
    if not set(tags) <= SDR:
        chunks += [png.chunk("cICP", bytes([*tags, 0, 1])), *hdr_chunks(frame)]
    files.write_bytes(target, png.encode(pixels, carried=chunks))


def _open_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]
    if not streams:
        raise SequenceError("video.no_video", f"{path.name} has no video stream")
    if streams[0].codec_context is None:
        raise SequenceError(
            "video.unknown_codec", f"video {path.name} cannot be read: FFmpeg has no decoder for its codec"
        )
    if len(streams) > 1:
        log.warning("%s has %d video streams; only the first is rendered", path.name, len(streams))
    streams[0].thread_type = "AUTO"
    streams[0].codec_context.options = {"err_detect": "explode"}  # otherwise errors in frames are concealed
    return streams[0]


class _AlphaDecoder:
    """Decodes frames once more, with alpha, if the container stores alpha as a second stream in each packet."""

    def __init__(self, stream: av.VideoStream, path: Path) -> None:
        self._name = path.name
        self._waiting: deque[av.VideoFrame] = deque()
        self._found = False
        self._decoder: Any = None
        tags = {name.lower(): value for name, value in stream.metadata.items()}
        self._expected = tags.get("alpha_mode") == "1"
        if self._expected and (name := ALPHA_DECODERS.get(stream.codec_context.name)):
            with suppress(av.error.FFmpegError, ValueError):  # FFmpeg was built without this decoder
                self._decoder = av.CodecContext.create(name, "r")

    def feed(self, packet: av.Packet) -> None:
        """Decode a packet; an empty one flushes the decoder."""
        if self._decoder:
            self._waiting.extend(self._decoder.decode(packet if packet.size else None))

    def next(self, frame: av.VideoFrame) -> av.VideoFrame | None:
        """Return the same frame with alpha; None if it has none."""
        with_alpha = self._waiting.popleft() if self._waiting else None
        if with_alpha is None or not any(component.is_alpha for component in with_alpha.format.components):
            return None
        self._found = True
        with_alpha.colorspace, with_alpha.color_range = frame.colorspace, frame.color_range
        return with_alpha

    def report(self) -> None:
        """Log a warning if the video is tagged with alpha but none was decoded."""
        if self._expected and not self._found:
            log.warning("%s is rendered without its alpha, which this FFmpeg cannot decode", self._name)


def _decode_frames(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[tuple[av.VideoFrame, av.VideoFrame | None]]:
    """Yield all frames in presentation order, each with its copy from ``_AlphaDecoder``.

    Raises SequenceError if a frame is damaged or missing.
    """
    alpha = _AlphaDecoder(stream, path)
    packets = count = end = longest = 0
    begins = False
    durations = set()
    last = None
    for packet in container.demux(stream):
        begins |= packet.is_keyframe and not packets
        packets += packet.size > 0
        try:
            alpha.feed(packet)
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
            yield frame, alpha.next(frame)
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is not None:
            end = max(end, shown + (packet.duration or longest))
    if not begins and count < packets:
        lost = f"{packets - count} of its {packets} frames depend on a missing frame"
        raise SequenceError("video.no_beginning", f"the beginning of video {path.name} is missing: {lost}")
    if 0 < packets - count < count and stream.codec_context.name in DROPS_LEADING_FRAMES:
        log.warning(
            "%s was cut between key frames: %d of its %d frames depend on one before the cut and are left out",
            path.name,
            packets - count,
            packets,
        )
    declared, found = _frame_counts(container, stream, packets=packets, end=end)
    if found < declared:
        raise SequenceError(
            "video.truncated", f"video {path.name} is truncated: it ends after {count} of {declared} frames"
        )
    varies = longest - min(durations, default=0) > 1
    duration = _declared_seconds(stream)
    _check_end(container, stream, path, end=end, longest=longest, varies=varies)
    if not (declared or duration):
        log.info("%s states neither its number of frames nor its duration; a missing end goes unnoticed", path.name)
    alpha.report()
    if varies:
        log.warning("%s has a variable frame rate: every frame is rendered once, in order", path.name)


def _frame_counts(
    container: av.container.InputContainer, stream: av.VideoStream, *, packets: int, end: int
) -> tuple[int, int]:
    """Return how many frames a file declares (0 if unknown), and how many of them exist; ``end`` is its last time."""
    if "mov" in container.format.name:
        return len(stream.index_entries), packets  # frames that an edit list hides are in neither
    if container.format.name == "mxf":
        return stream.duration or 0, packets
    return stream.frames, end  # in an AVI, times count frames, and a dropped frame has no packet


def _declared_seconds(stream: av.VideoStream) -> float | None:
    """Return the duration of a stream that a Matroska file declares, in seconds; None if it declares none."""
    parts = stream.metadata.get("DURATION", "").split(":")
    return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if len(parts) == 3 else None


def _check_end(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path, *, end: int, longest: int, varies: bool
) -> None:
    """Raise SequenceError if a video ends before its declared duration, or may do so because its file was cut.

    ``end`` is the last time of the video, and ``longest`` the longest duration of a frame, 0 for a single frame.
    """
    time_base = stream.time_base or Fraction(1, av.time_base)
    duration, seconds = _declared_seconds(stream), float(end * time_base)
    # the duration of the last frame of a variable rate may not be stored
    if duration and duration - seconds > (1 if varies or not longest else float(longest * time_base) / 2):
        raise SequenceError(
            "video.truncated", f"video {path.name} is truncated: it ends after {seconds:.1f} of {duration:.1f} seconds"
        )
    # gaps that missing frames leave look like a variable rate, and a single frame has no rate
    size, declared = path.stat().st_size, _declared_bytes(container, path)
    if size < declared and (varies or not longest):
        raise SequenceError("video.truncated", f"video {path.name} is truncated: it holds {size} of {declared} bytes")


def _declared_bytes(container: av.container.InputContainer, path: Path) -> int:
    """Return the size that a Matroska file declares for itself, in bytes; 0 if it declares none.

    The file consists of a header and a segment, whose size follows its id: RFC 8794, sections 4 and 6.
    """
    if "matroska" not in container.format.name:
        return 0
    with path.open("rb") as file:
        before, _, after = file.read(4096).partition(MATROSKA_SEGMENT)
    if not after:
        return 0
    length = 9 - after[0].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(after[:length]) & unknown
    return 0 if size == unknown else len(before) + len(MATROSKA_SEGMENT) + length + size


def _log_description(path: Path, stream: av.VideoStream, frame: av.VideoFrame) -> None:
    coding = colour_coding(frame)
    rate = f"{float(stream.average_rate):.6g} fps" if stream.average_rate else "unknown rate"
    kind = f"{stream.codec_context.name} {frame.format.name} {frame.width}×{frame.height}, {rate}"
    if coding.matrix:
        kind += f", {MATRICES[coding.matrix][0]}, {'full' if coding.full else 'limited'} range"
    log.info("%s: %s", path.name, ", ".join([kind, *coding.assumed]))
    if frame.interlaced_frame:
        log.warning("%s is interlaced; its frames are not deinterlaced", path.name)
    if orientation(frame) != (False, 1, 1):
        log.info("%s is tagged as rotated or mirrored; its frames are rotated or mirrored accordingly", path.name)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn an error of FFmpeg into a SequenceError that names the video."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise SequenceError("video.unreadable", f"video {path.name} cannot be read: {error.strerror}") from error
