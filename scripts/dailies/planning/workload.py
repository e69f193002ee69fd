"""Which frames the selected models still lack, and the time and space that rendering them takes: the plan."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from statistics import mean, median

from dailies.core.errors import SequenceError
from dailies.core.text import WIDEST, counted, duration, in_bytes
from dailies.discovery import report
from dailies.frames import scan, sequence
from dailies.frames.sequence import Frame
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.planning import estimates
from dailies.planning.config import Settings, loading_settings, pixel_settings
from dailies.state import due_shards, manifest
from dailies.state.labels import labels
from dailies.state.layout import Layout
from dailies.state.records import DiscoveryIndex, Knockout, Metadata, Outcome, RunRecord

UNKNOWN, NOTHING = "unknown", "-"
"""What the table shows for a value that is not known yet, and for a model that has nothing to render."""


def plan(layout: Layout, settings: Settings) -> str:
    """Return a table of the selected models with what each still needs, the sums, and how many runs are skipped.

    It sends no request, downloads nothing and opens no frame, so it works on a head node.
    """
    workload = Workload(layout, settings)
    table = report.table(layout, settings, workload.columns)
    return "\n".join([table, *workload.summary, report.counts(layout)])


@dataclass(frozen=True)
class Footage:
    """The frames to render, as far as they are known without opening any."""

    sequence: FrameSequence
    """The frames that were read before and have not changed since."""
    unread: int | None = 0
    """How many others there are; None if that is unknown."""
    is_current: bool = False
    """Whether reading the frames again would change nothing."""
    reason: str | None = None
    """Why something is unknown."""

    @classmethod
    def of(cls, layout: Layout, settings: Settings) -> "Footage":
        """Compare the sequence that was read last with a listing of the input, which may be missing."""
        known = sequence.load(layout.sequence) if layout.sequence.is_file() else FrameSequence(())
        try:
            listing = scan.listing(settings.input_dir, layout.scan, settings.layer, settings.frames)
        except SequenceError as error:
            return cls(FrameSequence(()), None, reason=str(error))
        if listing is None:
            return cls(FrameSequence(()), None, reason=f"the video {settings.input_dir} is not decoded yet")
        current = replace(known, frames=tuple(_named(frame, settings) for frame in listing.values() if frame))
        skipped = {each["name"] for each in known.skipped}
        unread = sum(frame is None and name not in skipped for name, frame in listing.items())
        is_current = not unread and current.digest == known.digest
        reason = f"{counted(unread, 'frame')} of {settings.input_dir} will be read first" if unread else None
        return cls(current, unread, is_current, reason)

    @property
    def total(self) -> int | None:
        """The number of all frames; None if it is unknown."""
        return None if self.unread is None else len(self.sequence.frames) + self.unread

    def sum(self, known: Iterable[Frame], value: Callable[[Frame], float]) -> float | None:
        """Return the sum of a value over ``known`` frames and all unread ones, which are assumed to be average.

        None if there are unread frames and nothing is known of any frame.
        """
        if not self.unread:
            return None if self.unread is None else sum(map(value, known))
        if not self.sequence.frames:
            return None
        return sum(map(value, known)) + self.unread * mean(map(value, self.sequence.frames))


def _named(frame: Frame, settings: Settings) -> Frame:
    """Return a frame with the name that its rendered file has with these settings."""
    output = scan.output_name(frame.output, floating=frame.floating, output_format=settings.output_format)
    return replace(frame, output=output)


def _megapixels(frame: Frame) -> float:
    return frame.width * frame.height / 1e6


class Speeds:
    """How long models take for a megapixel of the source, according to all renders in the output folder."""

    def __init__(self, layout: Layout, settings: Settings, frames: Iterable[Frame]) -> None:
        """Count only renders on the configured kind of device, unless that is ``auto``; ``frames`` have the sizes."""
        self._layout = layout
        self._settings = settings
        self._megapixels = {frame.output: _megapixels(frame) for frame in frames}

    def of(self, model: str) -> float | None:
        """Return the seconds of a model: its own, or else the median of its architecture; None if unknown."""
        if model in self.own:
            return self.own[model]
        architecture = self._architecture(model)
        alike = [speed for other, speed in self.own.items() if self._architecture(other) == architecture]
        return median(alike) if architecture and alike else None

    @cached_property
    def own(self) -> dict[str, float]:
        """The median over the frames of each model that was rendered: the first frame of a job is slow."""
        times = {model: [*self._times(model)] for model in self._layout.rendered()}
        return {model: median(each) for model, each in times.items() if each}

    def _times(self, model: str) -> Iterator[float]:
        kind = self._settings.device.partition(":")[0]
        for entry in manifest.rendered(self._layout.manifests(model)):
            if entry.output in self._megapixels and kind in {"auto", entry.device}:
                yield entry.seconds / self._megapixels[entry.output]

    @cache  # noqa: B019 - one object per process
    def _architecture(self, model: str) -> str | None:
        """Return the architecture of a model: as it was loaded, or as its run names it."""
        outcomes = map(Outcome.load, sorted(self._layout.attempts(model).glob("*.json")))
        loaded = next((last.model.architecture for last in outcomes if last.model), None)
        run = RunRecord.load_if_there(self._layout.run(model))
        found = loaded or (run.architecture if run else None) or self._settings.default_architecture
        return found.casefold() if found else None


@dataclass(frozen=True)
class Due:
    """What a model needs to be complete. Estimates are None if they are unknown."""

    frames: int | None
    """How many frames it has to render."""
    seconds: float | None = 0.0
    """The time that they take on the device."""
    is_own_speed: bool = True
    """Whether that is the speed of the model itself, and not that of others of its architecture."""
    frame_bytes: float | None = 0.0
    """Bytes of the frames that replace no file."""
    weight_bytes: float = 0.0
    """Bytes to download."""

    @property
    def new_bytes(self) -> float | None:
        """Bytes that will be new on the disk."""
        return None if self.frame_bytes is None else self.frame_bytes + self.weight_bytes


class Workload:
    """What each of the selected models needs."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        """Look at the records and listings of an output folder in which ``discover`` has selected the models."""
        self._layout = layout
        self._settings = settings
        self._basis = {"settings": pixel_settings(settings), "loading": loading_settings(settings)}
        self.footage = Footage.of(layout, settings)
        self._speeds = Speeds(layout, settings, self.footage.sequence.frames)
        self.models = {model: self._due(model) for model in DiscoveryIndex.load(layout.index).models}

    def _due(self, model: str) -> Due:
        layout, footage, lacking = self._layout, self.footage, self._lacking(model)
        count = None if footage.unread is None else len(lacking) + footage.unread
        if count is not None and self._settings.knockout_frames and not self._is_finalist(model):
            count = min(count, self._settings.knockout_frames)
        if count == 0:
            return Due(0)
        there, scale = manifest.file_names(layout.frames(model)), estimates.scale_of(layout.attempts(model))

        def size(frame: Frame) -> float:
            return estimates.frame_size(frame, self._settings.output_format) * scale**2

        speed, megapixels = self._speeds.of(model), footage.sum(lacking, _megapixels)
        is_downloaded = layout.weights(model).whole.is_dir()
        return Due(
            frames=count,
            seconds=None if speed is None or megapixels is None else speed * megapixels,
            is_own_speed=model in self._speeds.own,
            frame_bytes=footage.sum([frame for frame in lacking if frame.output not in there], size),
            weight_bytes=0.0 if is_downloaded else estimates.artifact_size(layout.record(model)),
        )

    def _lacking(self, model: str) -> list[Frame]:
        """Return the frames that the model must render, of those that were read before."""
        if not self.footage.is_current:
            return self._not_in_place(model, self.footage.sequence)
        due = [shard for name, shard in self._shards_of(model).items() if self._is_due(model, name, shard)]
        return [frame for shard in due for frame in self._not_in_place(model, shard)]

    def _shards_of(self, model: str) -> dict[str, FrameSequence]:
        """Return the shards that a model renders: the first round of a knockout unless it is a finalist, or all."""
        whole, settings = self.footage.sequence, self._settings
        shards = sequence.split(whole, settings.shard_frames, settings.knockout_frames) if whole.frames else {}
        first_round = shards.pop(sequence.KNOCKOUT, None)
        if first_round is None or self._is_finalist(model):
            return shards
        return {sequence.KNOCKOUT: first_round}

    def _is_finalist(self, model: str) -> bool:
        known = self._decision.by_model.get(model) if self._decision else None
        return known is not None and known.is_finalist

    @cached_property
    def _decision(self) -> Knockout | None:
        """The decision of a knockout with these settings; None if it has yet to be taken."""
        found = Knockout.load_if_there(self._layout.knockout)
        return found if found and found.finalists == self._settings.finalists else None

    def _is_due(self, model: str, name: str, shard: FrameSequence) -> bool:
        layout, settings = self._layout, self._settings
        attempt = due_shards.next_attempt(
            layout.attempt(model, name),
            layout.sequence,
            layout.frames(model),
            shard=name,
            shard_frames=settings.shard_frames,
            knockout_frames=settings.knockout_frames,
        )
        return due_shards.is_due(layout, model, name, frames=shard.digest, attempt=attempt, **self._basis)

    def _not_in_place(self, model: str, frames: FrameSequence) -> list[Frame]:
        kept = due_shards.frames_in_place(self._layout, model, frames, **self._basis)
        return [frame for frame in frames.frames if frame.output not in kept]

    # As text

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The columns of a table: a heading, and a row for each model.

        Labels and ranks have columns if models differ in params, and if there are any ranks so far.
        """
        columns = [("label", self._labels), ("rank", self._ranks)]
        shown = [(title, found) for title, found in columns if any(found.values())]
        titles = tuple(title for title, _ in shown)
        return [
            (*titles, "frames due", "time", "disk"),
            *(
                (*(found[model] or NOTHING for _, found in shown), *self._needs(due))
                for model, due in self.models.items()
            ),
        ]

    @property
    def _labels(self) -> dict[str, str]:
        runs = {model: RunRecord.load(self._layout.run(model)) for model in self.models}
        return {model: label.within(WIDEST) if label.params else "" for model, label in labels(runs).items()}

    @property
    def _ranks(self) -> dict[str, str]:
        found = {model: Metadata.load_if_there(self._layout.metadata(model)) for model in self.models}
        return {model: str(about.rank) if about and about.rank else "" for model, about in found.items()}

    def _needs(self, due: Due) -> tuple[str, ...]:
        frames = UNKNOWN if due.frames is None else f"{due.frames} of {self.footage.total}"
        if due.frames == 0:
            return frames, NOTHING, NOTHING
        time = UNKNOWN if due.seconds is None else f"{'' if due.is_own_speed else '~'}{duration(due.seconds)}"
        return frames, time, UNKNOWN if due.new_bytes is None else in_bytes(due.new_bytes)

    @property
    def summary(self) -> list[str]:
        """Sentences with the sums, and with what is unknown or an estimate."""
        due = [each for each in self.models.values() if each.frames != 0]
        if self._settings.knockout_frames and (due or not self._decision):
            return [*self._sums(due), self._about_knockout]
        if not due and self._settings.knockout_frames:
            return ["Nothing to render: all finalists have every frame, and the others those of the first round."]
        if not due:
            return [f"Nothing to render: every model has its {counted(self.footage.total or 0, 'frame')}."]
        return self._sums(due)

    @property
    def _about_knockout(self) -> str:
        settings = self._settings
        return (
            f"All models render {counted(settings.knockout_frames, 'frame')} first; {settings.finalists} finalists, "
            "and all that tie with the first, then render all frames. Until the finalists are known, their other "
            "frames are not included."
        )

    def _sums(self, due: Sequence[Due]) -> list[str]:
        lines = [f"To render: {self._frames(due)}; {self._space(due)}; {self._time(due)}."]
        if self.footage.reason:
            lines.append(f"Not everything is known yet: {self.footage.reason}.")
        if any(each.seconds is not None for each in due):
            others = "" if all(each.is_own_speed for each in due) else "; ~: of other models with the same architecture"
            lines.append(f"Times are those of earlier renders in this output folder{others}.")
        return lines

    def _frames(self, due: Sequence[Due]) -> str:
        models = counted(len(due), "model")
        counts = [each.frames for each in due if each.frames is not None]
        return f"{counted(sum(counts), 'frame')} of {models}" if counts else f"frames of {models}"

    def _space(self, due: Sequence[Due]) -> str:
        sizes = [each.frame_bytes for each in due if each.frame_bytes is not None]
        frames = f"about {in_bytes(sum(sizes))} of frames" if len(sizes) == len(due) else "frames of unknown size"
        return f"{frames} and {in_bytes(sum(each.weight_bytes for each in due))} of weights"

    def _time(self, due: Sequence[Due]) -> str:
        seconds = [each.seconds for each in due if each.seconds is not None]
        if not seconds:
            return "device hours unknown"
        unknown = len(due) - len(seconds)
        without = f" without {counted(unknown, 'model')} of unknown speed" if unknown else ""
        hours = sum(seconds) / 3600
        amount = f"about {hours:,.1f}" if hours >= 1 else f"about {hours:.2f}" if hours >= 0.01 else "less than 0.01"
        return f"{amount} device hours{without}"
