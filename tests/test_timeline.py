"""The timeline, read back by OpenTimelineIO itself."""

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import opentimelineio as otio
import pytest
from conftest import Studio, strict_json
from dailies import files, sequence, timeline
from dailies.errors import TimelineError
from dailies.sequence import Frame
from dailies.sequence import Sequence as FrameSequence

FrameFile = Path | None


def shown(clip: otio.schema.Clip) -> list[Path]:
    """The files that a clip shows, one for each of its frames."""
    media, length = clip.media_reference, int(clip.source_range.duration.value)
    if isinstance(media, otio.schema.ExternalReference):
        addresses = [media.target_url] * length
    else:
        first = int(clip.source_range.start_time.value) - media.start_frame
        addresses = [media.target_url_for_image_number(first + number) for number in range(length)]
    return [Path(unquote(urlsplit(address).path)) for address in addresses]


def laid_out(track: otio.schema.Track) -> list[FrameFile]:
    """What a track shows frame by frame; None in a gap."""
    found: list[FrameFile] = []
    for item in track:
        gap = isinstance(item, otio.schema.Gap)
        found += [None] * int(item.duration().value) if gap else shown(item)
    return found


def write(tmp_path: Path, names: list[str], *, models: dict[str, str] | None = None, **changes) -> otio.schema.Timeline:
    """Write the timeline of a sequence of empty files and models with given statuses, and read it back."""
    shot = tmp_path / "shot"
    shot.mkdir()
    frames = [Frame(name, sequence.output_name(name), 4, 4, "RGB", 8, 1, name) for name in names]
    for name in names:
        (shot / name).touch()
    paths = []
    for model, status in (models or {}).items():
        folder = tmp_path / "out" / model
        for frame in frames if status == "success" else ():
            files.write_bytes(folder / frame.output, b"")
        paths.append(folder / "metadata.json")
        files.write_json(paths[-1], {"render": {"status": status}})
    sequence.save(FrameSequence(tuple(frames), fps=changes.pop("own_fps", None)), tmp_path / "sequence.json")
    for path in changes.pop("lost", ()):
        (tmp_path / path).unlink()
    about = {"input_dir": shot, "reference": None, "fps": None} | changes
    output = tmp_path / "out" / "shot.otio"
    timeline.write(paths, sequence=tmp_path / "sequence.json", output=output, **about)
    return otio.adapters.read_from_file(str(output))


def test_snakemake_timeline_has_a_track_for_the_source_and_every_model(rendered: Studio):
    rendered.snakemake("timeline")

    read = otio.adapters.read_from_file(str(rendered.output / "compare" / "shot.otio"))
    folders = [rendered.folder(rendered.runs[name]) for name in ("dark", "middle", "light")]
    assert [track.name for track in read.tracks] == ["source", *(folder.name for folder in folders)]
    for track, folder in zip(read.tracks, [rendered.frames, *folders], strict=True):
        assert laid_out(track) == sorted(folder.glob("*.png"))
        (clip,) = track
        media = clip.media_reference
        assert (media.name_prefix, media.name_suffix, media.frame_zero_padding) == ("frame_", ".png", 6)
        assert (media.start_frame, media.rate, media.frame_step) == (0, 24.0, 1)
        assert media.missing_frame_policy == otio.schema.ImageSequenceReference.MissingFramePolicy.black
        assert clip.available_range() == clip.source_range
    assert read.duration() == otio.opentime.RationalTime(4, 24)
    assert read.metadata["dailies"]["sequence_digest"] == strict_json(rendered.state / "sequence.json")["digest"]
    assert "Nothing to be done" in rendered.snakemake("-n", "timeline")
    assert "Nothing to be done" in rendered.snakemake("-n")


def test_missing_numbers_are_gaps_and_a_frame_keeps_its_place(tmp_path: Path):
    names = [f"s1_{number:04d}.jpg" for number in (1001, 1002, 1005, 1006)]
    read = write(tmp_path, names, models={"a": "success"}, fps=25)

    shot, model = tmp_path / "shot", tmp_path / "out" / "a"
    source, rendered = map(laid_out, read.tracks)
    assert source == [shot / names[0], shot / names[1], None, None, shot / names[2], shot / names[3]]
    assert rendered == [path and model / f"{path.stem}.png" for path in source]
    assert read.global_start_time == otio.opentime.RationalTime(1001, 25)
    clip = read.tracks[0][2]
    assert clip.source_range.start_time == otio.opentime.RationalTime(1005, 25)


@pytest.mark.parametrize("prefix", ["shot.", "shot", "shot_"])
def test_frames_before_zero_keep_their_places(tmp_path: Path, prefix: str):
    names = [f"{prefix}{number:05d}.png" for number in (-4, -2, -1, 0, 1)]
    read = write(tmp_path, names)

    shot = tmp_path / "shot"
    assert laid_out(read.tracks[0]) == [shot / names[0], None, *(shot / name for name in names[1:])]
    assert read.global_start_time.value == -4


def test_files_that_are_missing_are_gaps_in_their_own_track(tmp_path: Path):
    names = [f"f_{number}.png" for number in (8, 9, 10, 11)]
    reference = tmp_path / "reference"
    reference.mkdir()
    for name in ("f_9.exr", "f_10.exr"):
        (reference / name).touch()
    paired = {f"{Path(name).stem}.png": reference / name for name in ("f_9.exr", "f_10.exr")}
    read = write(tmp_path, names, models={"a": "success"}, reference=paired, own_fps=30.0, lost=["out/a/f_10.png"])

    assert [track.name for track in read.tracks] == ["source", "reference", "a"]
    source, clean, model = map(laid_out, read.tracks)
    assert [path.name for path in source] == names
    assert clean == [None, reference / "f_9.exr", reference / "f_10.exr", None]
    assert [path and path.name for path in model] == ["f_8.png", "f_9.png", None, "f_11.png"]
    assert read.tracks[0][0].media_reference.frame_zero_padding == 1
    assert read.duration().rate == 30


def test_names_without_numbers_and_of_several_numberings_follow_one_another(tmp_path: Path):
    names = ["a%20 100%.png", "b#ü.png", "c_009.png", "c_010.png", "d_7.png", f"e{'9' * 20}.png"]
    read = write(tmp_path, names)

    assert laid_out(read.tracks[0]) == [tmp_path / "shot" / name for name in names]
    kinds = [type(clip.media_reference).__name__ for clip in read.tracks[0]]
    assert kinds == [
        "ImageSequenceReference",
        "ExternalReference",
        *["ImageSequenceReference"] * 2,
        "ExternalReference",
    ]


def test_failed_models_have_no_track(tmp_path: Path):
    read = write(tmp_path, ["f_1.png"], models={"bad": "load_failed", "good": "success"})

    assert [track.name for track in read.tracks] == ["source", "good"]


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)

    with pytest.raises(TimelineError) as error:
        write(tmp_path, ["f_1.png"])
    assert str(error.value) == "OpenTimelineIO, which writes timelines, is missing: pip install opentimelineio"
