"""The manifest: which frames are written, and which must be rendered."""

import hashlib
import json
import os
import threading
from dataclasses import asdict, replace

import pytest
from dailies.core import files
from dailies.frames.sequence import Frame, Sequence
from dailies.state.manifest import Follower, Manifest, digests, forget, frame_key, in_place, keys_of, prune

SETTINGS = {"precision": "fp32", "tiled": "auto", "tile_size": 512, "overlap": 64}
FRAMES = tuple(
    Frame(f"{letter}.jpg", f"{letter}.png", 7, 5, "RGB", 8, 100, sha256=f"digest of {letter}") for letter in "abc"
)
SEQUENCE = Sequence(FRAMES)
KEYS = keys_of(SEQUENCE, "weights", SETTINGS)


def test_a_layer_is_part_of_the_key_and_none_leaves_it_as_it_was():
    plain = FRAMES[0]

    assert frame_key(plain, "weights", SETTINGS) == files.digest([2, plain.sha256, "weights", SETTINGS])
    keys = {frame_key(replace(plain, layer=layer), "weights", SETTINGS) for layer in ("", "beauty", "specular")}
    assert len(keys) == 3


@pytest.fixture
def folder(tmp_path):
    """The folder of a model, with its three frames."""
    (tmp_path / "model").mkdir()
    for name in KEYS:
        (tmp_path / "model" / name).write_bytes(b"pixels")
    return tmp_path / "model"


@pytest.fixture
def manifest(folder):
    """A manifest that knows all three frames."""
    full = again(folder, KEYS)
    full.restart()
    for name in KEYS:
        full.add(name, b"pixels", seconds=0.25, device="cpu", tiled=False)
    return full


def again(folder, keys):
    """The same manifest, where frames must have other keys."""
    return Manifest(folder.parent / "model.jsonl", folder=folder, keys=keys)


def test_a_written_frame_is_done(manifest):
    entry = manifest.done()["b.png"]

    assert list(manifest.done()) == ["a.png", "b.png", "c.png"]
    assert asdict(entry) == {
        "output": "b.png",
        "key": KEYS["b.png"],
        "size": 6,
        "sha256": hashlib.sha256(b"pixels").hexdigest(),
        "seconds": 0.25,
        "device": "cpu",
        "tiled": False,
        "startup": None,
    }


def test_without_a_manifest_no_frame_is_done(tmp_path):
    assert Manifest(tmp_path / "none.jsonl", folder=tmp_path, keys=KEYS).done() == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"pixels and more"),
    ],
    ids=["deleted", "empty", "another size"],
)
def test_a_frame_whose_file_is_not_as_it_was_written_is_not_done(manifest, folder, change):
    change(folder / "b.png")

    assert list(manifest.done()) == ["a.png", "c.png"]


def test_a_frame_whose_input_changed_is_not_done(manifest, folder):
    changed = replace(FRAMES[1], sha256="another digest")
    keys = keys_of(Sequence((FRAMES[0], changed, FRAMES[2])), "weights", SETTINGS)

    assert list(again(folder, keys).done()) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("artifact", "settings"),
    [("other weights", SETTINGS), ("weights", SETTINGS | {"precision": "bf16"}), ("weights", {"precision": "fp32"})],
)
def test_another_artifact_or_setting_means_all_frames(manifest, folder, artifact, settings):
    assert again(folder, keys_of(SEQUENCE, artifact, settings)).done() == {}


def test_new_frames_leave_the_others_done(manifest, folder):
    longer = Sequence((*FRAMES, replace(FRAMES[0], output="d.png", sha256="digest of d")))

    assert list(again(folder, keys_of(longer, "weights", SETTINGS)).done()) == ["a.png", "b.png", "c.png"]


def test_frames_that_left_the_sequence_do_not_count(manifest, folder):
    keys = keys_of(Sequence(FRAMES[:2]), "weights", SETTINGS)

    assert list(again(folder, keys).done()) == ["a.png", "b.png"]


def test_keys_do_not_depend_on_the_order_of_settings_nor_on_file_details():
    reordered = dict(reversed(SETTINGS.items()))

    assert frame_key(FRAMES[0], "weights", reordered) == KEYS["a.png"]
    assert frame_key(replace(FRAMES[0], size=1, mode="L"), "weights", SETTINGS) == KEYS["a.png"]


def test_only_a_frame_that_is_read_differently_has_another_key():
    # as it was before frames had a revision: what is rendered stays rendered
    assert KEYS["a.png"] == files.digest([2, "digest of a", "weights", SETTINGS])

    revised = replace(FRAMES[0], revision="bmp-1")
    keys = keys_of(Sequence((revised, *FRAMES[1:])), "weights", SETTINGS)

    assert [name for name in KEYS if keys[name] != KEYS[name]] == ["a.png"]
    assert (
        Sequence((revised, *FRAMES[1:])).digest
        != SEQUENCE.digest
        == files.digest([[frame.output, frame.sha256] for frame in FRAMES])
    )


def test_a_line_of_a_later_version_counts(manifest):
    done = list(manifest.done())
    lines = [json.loads(line) | {"later": 1} for line in manifest.path.read_text().splitlines()]
    manifest.path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert list(manifest.done()) == done != []


@pytest.mark.parametrize("rest", ['{"output": "c.png", "key": "', "\0\0\0\0", "[]", "{}", '{"output": 1}', "\udcff"])
def test_a_line_cut_short_by_a_crash_is_ignored(manifest, folder, rest):
    path = folder.parent / "model.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_bytes(("".join(lines[:2]) + rest).encode("utf-8", "surrogateescape"))

    assert list(manifest.done()) == ["a.png", "b.png"]


def test_a_restart_forgets_frames_that_must_be_rendered(manifest, folder):
    (folder / "b.png").unlink()
    path = folder.parent / "model.jsonl"
    path.write_text(path.read_text() + '{"cut sho')

    manifest.restart()
    manifest.add("b.png", b"longer pixels", seconds=1, device="cuda", tiled=True)

    assert [json.loads(line)["output"] for line in path.read_text().splitlines()] == ["a.png", "c.png", "b.png"]


def test_the_last_of_two_lines_counts(manifest, folder):
    other = again(folder, keys_of(SEQUENCE, "other weights", SETTINGS))
    other.add("b.png", b"PIXELS", seconds=1, device="cpu", tiled=False)

    assert list(manifest.done()) == ["a.png", "c.png"]
    assert list(other.done()) == ["b.png"]


def test_many_threads_may_write(folder):
    names = [f"{number}.png" for number in range(200)]
    for name in names:
        (folder / name).write_bytes(b"pixels")
    manifest = again(folder, dict.fromkeys(names, "key"))
    manifest.restart()

    def add(part):
        for name in part:
            manifest.add(name, b"pixels", seconds=0.1, device="cpu", tiled=False)

    threads = [threading.Thread(target=add, args=(names[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(manifest.done()) == set(names)


@pytest.fixture
def shards(manifest, folder):
    """Manifests of two shards, a and b, c; all three frames are known from when the sequence was not split."""

    def shard(name, outputs, artifact="weights"):
        keys = keys_of(SEQUENCE, artifact, SETTINGS)
        return Manifest(folder.parent / f"{name}.jsonl", folder=folder, keys={name: keys[name] for name in outputs})

    return lambda artifact="weights": (shard("1", ["a.png", "b.png"], artifact), shard("2", ["c.png"], artifact))


def test_a_shard_knows_its_frames_from_any_manifest(shards, manifest):
    first, second = shards()

    assert (list(first.done()), list(second.done())) == (["a.png", "b.png"], ["c.png"])
    first.restart()
    second.restart()
    assert list(manifest.done()) == ["a.png", "b.png", "c.png"]


def test_a_restart_collects_entries_so_that_other_manifests_can_be_deleted(shards, folder):
    for shard in shards():
        shard.restart()

    prune(folder.parent, folder, ["1", "2"])

    assert sorted(path.name for path in folder.parent.glob("*.jsonl")) == ["1.jsonl", "2.jsonl"]
    assert [list(shard.done()) for shard in shards()] == [["a.png", "b.png"], ["c.png"]]


def test_a_manifest_keeps_entries_of_frames_that_moved_to_another_shard(shards, folder):
    for shard in shards():
        shard.restart()
    prune(folder.parent, folder, ["1", "2"])
    moved = Manifest(folder.parent / "1.jsonl", folder=folder, keys={"a.png": KEYS["a.png"]})

    moved.restart()

    assert list(again(folder, KEYS).done()) == ["a.png", "b.png", "c.png"]


def test_the_bytes_decide_between_entries_of_two_manifests(shards, manifest, folder):
    first, _ = shards("other weights")
    first.restart()
    (folder / "b.png").write_bytes(b"PIXELS")
    first.add("b.png", b"PIXELS", seconds=1, device="cpu", tiled=False)

    assert list(first.done()) == ["b.png"]
    assert list(manifest.done()) == ["a.png", "c.png"]


def test_a_frame_that_was_written_before_a_kill_is_not_taken_for_the_one_of_another_manifest(shards, manifest, folder):
    first, _ = shards("other weights")
    first.restart()
    (folder / "b.png").write_bytes(b"PIXELS")

    assert list(manifest.done()) == ["a.png", "c.png"]
    assert list(first.done()) == []


def test_pruning_removes_older_entries_of_frames_that_left_the_sequence(shards, manifest, folder):
    _, second = shards("other weights")
    second.restart()
    (folder / "c.png").write_bytes(b"PIXELS")
    second.add("c.png", b"PIXELS", seconds=1, device="cpu", tiled=False)
    shorter = again(folder, {name: KEYS[name] for name in ("a.png", "b.png")})

    shorter.restart()
    prune(folder.parent, folder, ["model"])

    assert list(manifest.done()) == ["a.png", "b.png"]


def test_frames_in_place_are_recognised_by_size_and_if_manifests_disagree_by_bytes(folder, tmp_path):
    def write(name, *entries):
        lines = (
            {"output": o, "key": "k", "size": n, "sha256": d, "seconds": 0, "device": "cpu", "tiled": False}
            for o, n, d in entries
        )
        (tmp_path / "manifests").mkdir(exist_ok=True)
        (tmp_path / "manifests" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    read = hashlib.sha256(b"pixels").hexdigest()
    write("1", ("a.png", 6, "told"), ("b.png", 6, "one"), ("c.png", 5, "old"))
    write("2", ("a.png", 6, "told"), ("b.png", 6, "another"))

    write("3", ("d.png", 6, "one"), ("d.png", 6, read))
    write("4", ("d.png", 6, "another"))
    (folder / "d.png").write_bytes(b"pixels")

    found = in_place(tmp_path / "manifests", folder, ["a.png", "b.png", "c.png", "d.png", "gone.png"])

    assert {name: entry.sha256 for name, entry in found.items()} == {"a.png": "told", "d.png": read}
    assert in_place(tmp_path / "manifests", folder, ["b.png"]) == in_place(tmp_path / "none", folder, ["a.png"]) == {}


def test_the_digest_of_a_frame_that_may_have_been_edited_is_not_known(manifest, folder):
    later = manifest.path.stat().st_mtime_ns + 1
    os.utime(folder / "b.png", ns=(later, later))
    (folder / "c.png").write_bytes(b"another size")

    found = digests(manifest.path.parent, folder, KEYS)

    assert found == {"a.png": hashlib.sha256(b"pixels").hexdigest()}


def forced(folder, *names):
    """The manifest that knows all three frames, for a render of some that is forced."""
    return Manifest(
        folder.parent / "model.jsonl", folder=folder, keys={name: KEYS[name] for name in names}, forced=True
    )


def test_forced_frames_are_forgotten_once_and_others_never(manifest, folder):
    forget(manifest.path, folder.parent / "forced", ["a.png", "b.png"], "f")
    assert list(manifest.done()) == ["c.png"]

    manifest.add("a.png", b"pixels", seconds=1, device="cpu", tiled=False)
    forget(manifest.path, folder.parent / "forced", ["a.png", "b.png"], "f")
    assert list(manifest.done()) == ["a.png", "c.png"]

    forget(manifest.path, folder.parent / "forced", ["a.png", "b.png"], "another")
    assert list(manifest.done()) == ["c.png"]


def test_a_forced_render_ignores_other_manifests(shards, manifest, folder):
    for shard in shards():
        shard.restart()
    forget(manifest.path, folder.parent / "forced", list(KEYS), "f")

    assert list(forced(folder).done()) == []
    (folder / "b.png").write_bytes(b"DAMAGE")
    assert list(manifest.done()) == ["a.png", "c.png"]  # afterwards the bytes decide


def test_forgetting_works_without_a_manifest(tmp_path):
    forget(tmp_path / "model" / "all.jsonl", tmp_path / "model" / "all.forced", ["a.png"], "f")

    assert Manifest(tmp_path / "model" / "all.jsonl", folder=tmp_path, keys=KEYS).done() == {}


# A render that is followed from another process


@pytest.fixture
def follower(manifest):
    return Follower(manifest.path, SEQUENCE.outputs, since=manifest.path.stat().st_mtime - 1)


def test_added_lines_are_followed_with_their_speed(manifest, follower):
    manifest.restart()
    manifest.path.write_text("".join(manifest.path.read_text().splitlines(keepends=True)[:1]))
    follower.update()
    assert (follower.written, follower.total, follower.rate) == ({"a.png"}, 3, 0)

    manifest.add("b.png", b"pixels", seconds=0.5, device="cpu", tiled=False)
    manifest.add("c.png", b"pixels", seconds=0.3, device="cpu", tiled=False)
    follower.update()

    assert follower.written == {"a.png", "b.png", "c.png"}
    assert follower.rate == pytest.approx(2.5)


def test_a_line_counts_once_it_is_complete(manifest, follower):
    lines = manifest.path.read_bytes().splitlines(keepends=True)
    manifest.path.write_bytes(lines[0] + lines[1][:30])
    follower.update()
    assert follower.written == {"a.png"}

    with manifest.path.open("ab") as file:
        file.write(lines[1][30:])
    follower.update()

    assert follower.written == {"a.png", "b.png"}


def test_a_manifest_that_starts_over_is_read_from_its_beginning(manifest, folder, follower):
    follower.update()
    assert len(follower.written) == 3

    again(folder, dict.fromkeys(KEYS, "another key")).restart()
    follower.update()

    assert not follower.written


def test_the_manifest_of_an_earlier_job_is_not_this_ones_progress(manifest):
    late = Follower(manifest.path, SEQUENCE.outputs, since=manifest.path.stat().st_mtime + 9)
    none = Follower(manifest.path.with_name("none.jsonl"), SEQUENCE.outputs, since=0)

    for follower in (late, none):
        follower.update()
        assert not follower.written


def test_frames_that_are_due_and_those_of_other_shards_do_not_count(manifest, folder):
    forget(manifest.path, folder.parent / "mark", ["a.png"], "token")
    follower = Follower(manifest.path, {"a.png", "b.png"}, since=0)

    follower.update()

    assert follower.written == {"b.png"}
