"""The settings of the workflow: every key with its type, bounds, default and description.

``docs/generate.py`` writes ``config/config.schema.yaml`` and the tables of keys in ``config/README.md`` from it.
``validation`` turns what a user wrote into ``Settings`` and reports what is wrong with it.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    field_validator,
)
from pydantic_core import CoreSchema

from dailies.core import files
from dailies.frames import choice

NOTHING = {"", "none", "null"}
"""Words that mean no value: ``snakemake --config key=null`` passes them on as text."""

SWITCHES = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
"""The words for true and false, as YAML reads them."""

RUN_ID_DIGITS = 32
"""The length of MLflow's run ids. A shorter id that YAML read as a number may have lost its leading zeros."""

EXPERIMENT_ID_DIGITS = 20
"""The largest number of digits of an experiment id."""

MEASURED_ORDER = re.compile(r"measured\.(\w+)(?:\s+(ASC|DESC))?", re.IGNORECASE)
"""An order by a metric that Dailies measures, in the style of MLflow's own."""

FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""How a function of the user is written: ``package.module:function``."""


def number_in(given: Any) -> Any:
    """Return a number that was written as text, and a whole number as an int; return anything else as it is."""
    try:
        number = float(given) if isinstance(given, str) else given
    except ValueError:
        return given
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _switch(given: Any) -> Any:
    return SWITCHES.get(given.strip().lower(), given) if isinstance(given, str) else given


def _lower(given: Any) -> Any:
    return given.strip().lower() if isinstance(given, str) else given


def _upper(given: Any) -> Any:
    return given.strip().upper() if isinstance(given, str) else given


def _text(given: Any) -> Any:
    """Return a whole number as the text it was before YAML read it."""
    return str(given) if type(given) is int else given


def _run_id(given: Any) -> Any:
    return str(given) if type(given) is int and len(str(given)) >= RUN_ID_DIGITS else given


def _id(given: Any) -> Any:
    """Return the id of a run or of an experiment as text, unless its digits fit neither."""
    is_experiment = type(given) is int and len(str(given)) <= EXPERIMENT_ID_DIGITS
    return str(given) if is_experiment else _run_id(given)


def _from_home(given: Any) -> Any:
    """Replace a leading ``~`` by the user's home folder, unless no user has that name."""
    return os.path.expanduser(given) if isinstance(given, str) else given  # noqa: PTH111 - Path raises RuntimeError


def _path(given: Any) -> Any:
    text = _from_home(_text(given))
    return Path(text) if isinstance(text, str) and text else text


def _template(given: Any) -> Any:
    """Return a template of one field as text; YAML reads ``{run_id}`` as a mapping."""
    is_field = isinstance(given, Mapping) and list(given.values()) in ([""], [None])
    return "{" + next(iter(given)) + "}" if is_field else _text(given)


def _expression(given: Any) -> Any:
    """Restore the last quote of an expression such as ``params.a = 'b'``; Snakemake strips it from ``--config``."""
    if not isinstance(given, str):
        return _text(given)
    quote = ""
    for character in given:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
    return given + quote.strip("`")


def _listed(given: Any) -> Any:
    """Return the items of a list, or one value as the only item."""
    if given is None:
        return None
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _separated(given: Any) -> Any:
    """Return the items of a list, of a text with commas, or one value as the only item."""
    if isinstance(given, str):
        return tuple(item.strip() for item in given.split(",") if item.strip())
    return _listed(given)


def _pair(given: Any) -> Any:
    items = _separated(given)
    return tuple(map(number_in, items)) if isinstance(items, tuple) else items


def _trust(given: Any) -> Any:
    """Read true, false or ids. The numbers 1 and 0 could mean either, so they stay and are refused."""
    value = _switch(given)
    return value if isinstance(value, bool) or value is None or number_in(value) in (0, 1) else _separated(value)


class OneOrSeveral:
    """Marks a list for which the schema also allows a single text."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        array = handler(schema)
        one = {"type": "string"} | {key: array["items"][key] for key in ("description",) if key in array["items"]}
        return {"anyOf": [one, array]}


T = TypeVar("T")

Text = Annotated[str, Field(min_length=1), BeforeValidator(_text)]
Template = Annotated[str, Field(min_length=1), BeforeValidator(_template)]
Expression = Annotated[str, Field(min_length=1), BeforeValidator(_expression)]
Address = Annotated[str, Field(min_length=1), BeforeValidator(_from_home), BeforeValidator(_text)]
Place = Annotated[Path, BeforeValidator(_path)]

Switch = Annotated[bool, BeforeValidator(_switch)]
Whole = BeforeValidator(number_in)
Number = AfterValidator(number_in)
Word = BeforeValidator(_lower)

Listed = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_listed), OneOrSeveral()]
Some = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_separated), OneOrSeveral()]
Several = Annotated[tuple[T, ...], BeforeValidator(_separated), OneOrSeveral()]

ExperimentName = Annotated[Text, Field(description="experiment name")]
ModelVersion = Annotated[
    str,
    Field(pattern=r"^(models:/)?[^/:]+(@[^/:@]+|/[0-9]+)$", description="name@alias or name/version"),
    BeforeValidator(_text),
]
RunId = Annotated[str, Field(min_length=1, description="run id"), BeforeValidator(_run_id)]
TrustedId = Annotated[
    str,
    Field(pattern=r"^([0-9]+|[0-9a-fA-F]{32})$", description="experiment or run id"),
    BeforeValidator(_id),
]
TrustedIds = Annotated[tuple[TrustedId, ...], Field(min_length=1), OneOrSeveral()]
Frames = (
    Annotated[Literal["all"], Word]
    | Annotated[int, Field(ge=1), Whole]
    | Annotated[str, Field(pattern=choice.SLICE, description='a slice such as "0:201:8"')]
)
MeasureFrames = Annotated[Literal["auto", "all"], Word] | Annotated[int, Field(ge=1), Whole]
FrameName = Annotated[Text, Field(description="frame name")]
FieldName = Annotated[Text, Field(description="name")]
Folder = Annotated[Address, Field(description="folder")]
Scheme = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*$", description="scheme"), BeforeValidator(_text)]
Function = Annotated[str, Field(pattern=FUNCTION, examples=["networks.restorer:build"])]
NotEmpty = Annotated[str, Field(min_length=1)]

MetricName = Literal["auto", "psnr", "ssim", "ms_ssim", "flip", "lpips", "flicker", "detail", "clipping"]
Metric = Annotated[
    MetricName, Word, Field(description="of auto, psnr, ssim, ms_ssim, flip, lpips, flicker, detail and clipping")
]


class Topic(BaseModel):
    """A group of settings; the docstring of a subclass is its heading in the documentation."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)


class FramesTopic(Topic):
    """Frames"""

    input_dir: Place = Path("demo/frames")
    """The folder with the frames of the sequence, or a video file, which is decoded once to lossless frames.
    docs/frames.md lists the formats."""

    frames: Frames = "all"
    """Which frames to render, measure and show: `all`, a number such as `12` for frames that are evenly spread from the
    first to the last, or a slice of positions such as `"0:201:8"`, which excludes its end, as in Python. Quote a slice:
    YAML reads `1:30` as a number. Frames that are already rendered are kept."""

    knockout_frames: Annotated[int, Field(ge=0), Whole] = 0
    """How many evenly spread frames all models render first, at least 12. They are ranked by these frames, and only the
    finalists render all others. It needs `finalists`, and a metric that ranks. With 0, every model renders every
    frame."""

    finalists: Annotated[int, Field(ge=0), Whole] = 0
    """How many models render all frames after `knockout_frames`: the best ones, and all that tie with the first. A
    larger number later renders just what is missing."""

    layer: Text | None = None
    """Which layer, part or view of a multi-layer EXR to render: its full name, the last component of that name, or a
    glob such as `*.Combined`. With `null`, Dailies looks for the main picture in the order that docs/frames.md
    lists."""

    on_bad_frame: Annotated[Literal["error", "skip"], Word] = "error"
    """What to do with a frame that cannot be read. `error` stops before anything is rendered; `skip` leaves a gap in
    the output's frame numbers."""

    transfer: Annotated[Literal["clip"], Word] | None = "clip"
    """How floating-point frames reach a network. `clip` clamps every value to 0–1 and turns NaN into 0; `none` passes
    values through unchanged. Integer frames are not affected."""

    output_dir: Place = Path("output_inference")
    """The folder that receives one folder of frames per model, and the summary. It may be on another disk."""

    folder_name: Template = "{run_name}_{epoch}ep_loss{train_loss:.4f}_{run_id:.8}"
    """The template for the name of a model's folder, in Python's format syntax. Its fields are `run_name`, `run_id`,
    `architecture`, `epoch`, `train_loss`, `val_loss`, `experiment` and `start_time` (milliseconds since 1970); if a run
    lacks a field, the field is left out of the name."""

    output_format: Annotated[Literal["auto", "png", "png16", "exr", "tiff"], Word] = "auto"
    """The file format of rendered frames. `auto` keeps the depth of the source: 8-bit PNG, 16-bit PNG for 10 to 16
    bits, half-float EXR for floating point. `png` and `png16` clip values to 0–1, `exr` writes half floats, and `tiff`
    keeps the depth, with 32 bits for floating point. Colours are never converted."""


class ModelsTopic(Topic):
    """Models"""

    mlflow_uri: Address | None = "sqlite:///demo/mlflow.db"
    """Where MLflow keeps the runs: the `http(s)://` address of a tracking server, `sqlite:///` and a file, or an
    `mlruns` folder. With `null`, the environment variable `MLFLOW_TRACKING_URI` is used."""

    experiment_name: Listed[ExperimentName] | None = ("copyair_experiments",)
    """The MLflow experiment, or experiments, whose models are rendered. With `none`, only `models` and `run_ids` select
    models."""

    models: Some[ModelVersion] | None = None
    """Versions of registered models, as `name@alias` or `name/3`. They are rendered before the runs of the experiments;
    filters do not apply to them, and they do not count towards `max_runs`."""

    run_ids: Some[RunId] | None = None
    """Render only these runs. With `null`, every run that passes the filters is rendered."""

    filter_status: (
        Annotated[Literal["FINISHED", "RUNNING", "FAILED", "KILLED", "SCHEDULED"], BeforeValidator(_upper)] | None
    ) = "FINISHED"
    """Take only runs with this MLflow status; `none` takes all of them."""

    filter: Expression | None = None
    """An MLflow search expression that a run must also match, for example ``metrics.`val/psnr` > 30``."""

    order_by: Expression = "start_time DESC"
    """The order in which runs are taken, in MLflow's syntax, for example ``metrics.`val/psnr` DESC``. If you order by a
    metric that Dailies measures, such as `measured.psnr DESC`, this sorts the summary and the page. Runs are then taken
    by what earlier invocations measured, and those that were never measured last, newest first."""

    max_runs: Annotated[int, Field(ge=1), Whole] | None = None
    """Keep only the first N models in that order; `null` keeps all of them."""

    checkpoint_pattern: Text | None = None
    """A glob over a run's artifact paths that selects the model file, for example `checkpoints/last*.pth`; it may match
    any file, even one inside an MLflow model. With `null`, the best checkpoint file is preferred to the last one, and a
    checkpoint file to a logged model."""

    architecture_from: Several[FieldName] = (
        "model.architecture",
        "architecture",
        "model.arch",
        "arch",
        "model.name",
        "model_name",
        "model.type",
        "model_type",
        "model",
        "network",
        "net",
        "backbone",
    )
    """Names of params, metrics or tags that may hold a run's architecture. The first one that a run has is used."""

    epoch_from: Several[FieldName] = (
        "epoch",
        "best_epoch",
        "training.epochs",
        "training.num_epochs",
        "training.max_epochs",
        "train.epochs",
        "trainer.max_epochs",
        "epochs",
        "num_epochs",
        "n_epochs",
        "max_epochs",
    )
    """Names of params, metrics or tags that may hold the number of epochs a run was trained for. The first one that a
    run has is used."""

    train_loss_from: Several[FieldName] = (
        "train/loss",
        "train_loss",
        "train.loss",
        "training/loss",
        "training_loss",
        "loss/train",
        "loss_train",
        "train/total_loss",
        "loss",
    )
    """Names of params, metrics or tags that may hold a run's training loss. The first one that a run has is used."""

    val_loss_from: Several[FieldName] = (
        "val/loss",
        "val_loss",
        "val.loss",
        "valid/loss",
        "valid_loss",
        "validation/loss",
        "validation_loss",
        "loss/val",
        "loss_val",
        "val/total_loss",
        "eval_loss",
    )
    """Names of params, metrics or tags that may hold a run's validation loss. The first one that a run has is used."""

    recheck_artifacts: Switch | Annotated[Literal["auto"], Word] = "auto"
    """Whether every invocation lists the artifacts of known, finished runs again. `auto` does so for a store on disk,
    where it takes less than a millisecond per run, but not over HTTP."""

    artifact_remap: Annotated[dict[NotEmpty, NotEmpty], Field(examples=["{/old/mlruns: /new/mlruns}"])] = {}
    """Where to find the artifacts of a store that has moved: each old prefix of an artifact address, and the prefix to
    read instead."""

    allowed_artifact_schemes: Several[Scheme] = ("s3", "gs", "abfss", "wasbs", "hdfs", "dbfs")
    """URL schemes from which artifacts may be downloaded, besides the store's own location. If a run's artifacts are on
    another server, or a server's run points to this machine's disks, the run is skipped unless `artifact_remap` names a
    place for its files."""


class LoadingTopic(Topic):
    """Loading networks"""

    default_architecture: Text | None = None
    """The architecture to use if neither the checkpoint nor the run names one and the weights are not recognised."""

    model_factory: (
        Function | Annotated[dict[NotEmpty, Function], Field(examples=["{restorer: 'networks.restorer:build'}"])] | None
    ) = None
    """Your function that builds a network, as `package.module:function`, or one such function per architecture name. It
    receives the configuration that the trainer saved (`model_config`, or what docs/models.md lists) and returns a
    `torch.nn.Module`. If it has parameters `params` or `state_dict`, it also receives the run's params or the
    weights."""

    model_loader: (
        Annotated[Function, Field(examples=["loaders:load"])]
        | Annotated[dict[NotEmpty, Function], Field(examples=["{'restorer_*': 'loaders:load'}"])]
        | None
    ) = None
    """Your function that loads any file, or one function per architecture or folder name, with wildcards. It receives
    the path of a downloaded artifact and returns a `torch.nn.Module`. If it has a parameter `params`, it also receives
    the run's params. If several names match, the last one takes precedence; `*` applies only if no other name matches.
    A model with a loader is loaded in no other way and does not need `trust_code`."""

    python_path: Several[Folder] = ()
    """Folders that hold the modules of `model_factory` and `model_loader`, and the classes of networks that were
    pickled whole. If you edit a package that one of these two keys names, its models are rendered again."""

    signatures: Annotated[
        dict[NotEmpty, dict[str, Any]], Field(examples=["{unet: {value_range: [0, 1]}, 'swinir_*': {channels: 1}}"])
    ] = {}
    """How networks are fed, if neither the run nor the checkpoint states it correctly. Fields such as `value_range`,
    `output` or `extra_channels` are set by architecture or folder name, with wildcards. docs/models.md lists the
    fields."""

    trust_code: Annotated[bool | TrustedIds, BeforeValidator(_trust)] = False
    """Allow models that can run their author's code while they load: pickled networks, TorchScript and torch.export.
    `true` allows all of them; a list of ids allows those of these runs and experiments. Use it only if you trust
    everyone who can write to the store, or to those runs."""


class RenderingTopic(Topic):
    """Rendering"""

    precision: Annotated[Literal["fp32", "tf32", "fp16", "bf16"], Word] = "fp32"
    """The arithmetic of the network. `tf32`, `fp16` and `bf16` are faster on a GPU that supports them, and change the
    frames slightly."""

    compile: Switch = False
    """Compile each network with torch.compile before it renders. This needs a C++ compiler and takes a minute or more,
    so it pays off for long sequences on a GPU. Only the size of the first frame, or of its tiles, is compiled. Other
    sizes, and networks that cannot be compiled, run uncompiled, and `metadata.json` records this."""

    autotune: Switch = False
    """Let cuDNN try which of its algorithms is the fastest for every size of input. The choice can differ between jobs,
    so the frames of a resumed or sharded render may differ in the last bit. It has no effect without CUDA."""

    parity_tolerance: Annotated[
        tuple[Annotated[float, Field(ge=0), Number], Annotated[float, Field(ge=0), Number]], BeforeValidator(_pair)
    ] = (2, 0.25)
    """How far `compile`, `autotune` or a `precision` other than `fp32` may change the first frame: the largest and the
    mean difference, in code values of 255. If a model differs more, it falls back to fp32 without compiling or tuning,
    and `metadata.json` records this."""

    tiled: Switch | Annotated[Literal["auto"], Word] = "auto"
    """Whether frames are cut into overlapping tiles, which needs less memory. `auto` tries the full frame first and
    falls back to tiles when memory runs out."""

    tile_size: Annotated[int, Field(ge=32, le=8192, multiple_of=32), Whole] = 512
    """The largest width and height of a tile, in pixels."""

    overlap: Annotated[int, Field(ge=0), Whole] = 64
    """The minimum number of pixels that neighbouring tiles share. It must be at least 32 less than `tile_size`."""

    batch: Annotated[Literal["auto"], Word] | Annotated[int, Field(ge=1, le=256), Whole] = "auto"
    """How many frames of one size, or tiles of one frame, go through a network together. `auto` takes what fits on a
    CUDA device, up to 8, and 1 elsewhere. It does not change the pixels. If memory runs out, the batch shrinks before
    frames are cut into tiles."""


class MeasuringTopic(Topic):
    """Measuring"""

    reference_dir: Place | None = None
    """The folder or the video with the reference frames against which every model is measured. docs/frames.md explains
    how frames and references are paired."""

    reference_name: Template | None = None
    """The template of a reference file's name, if the names cannot be compared directly, such as `"{stem}_gt"`,
    `"{number:04d}.exr"` or `"{stem}/clean"`. `{stem}` is the frame's name without its extension, and `{number}` its
    number. If the template has no extension, any extension matches."""

    reference_offset: Annotated[int, Field(ge=-100_000_000, le=100_000_000), Whole] = 0
    """How many frames the reference's numbers are ahead: with 1, frame 10 belongs to number 11 of the reference."""

    metrics: Some[Metric] | None = ("auto",)
    """The metrics to compute for every frame. With a reference, `auto` means psnr, ssim, ms_ssim and the advisory
    flicker, detail and clipping; without one, it means the advisory metrics, and only for the target `metrics`. `none`
    measures nothing."""

    measure_frames: MeasureFrames = "auto"
    """How many of the rendered frames to measure. `auto` measures at most 64, evenly spread from the first to the last;
    `all` measures all, and a number that many. Values are kept, so that a larger choice measures only the rest. All
    frames of the first round of a knockout are measured."""

    rank_by: Annotated[MetricName, Word] = "auto"
    """The metric that ranks the models in `compare/leaderboard.csv`. `auto` takes the first one that needs a
    reference."""

    lpips_backbone: Place | None = None
    """The weights behind the metric lpips: torchvision's AlexNet, `alexnet-owt-7be5be79.pth`. With `null`, Dailies
    looks in torch's own cache, `~/.cache/torch/hub/checkpoints`; it never downloads the file. If the file changes,
    frames are measured again."""

    training_frames_from: Several[FieldName] = (
        "dailies.training_frames",
        "data.train_frames",
        "data.training_frames",
        "training.frames",
        "train_frames",
        "training_frames",
    )
    """Names of tags and params that may list the frames a run was trained on, such as `0-100`, `0:201:6` or
    `frame_0003.png`. All of those that a run has are used, and these frames are scored separately."""


class PageTopic(Topic):
    """Comparison page"""

    compare: Switch = True
    """Build the page that shows the models side by side, and the contact sheet."""

    fps: Annotated[float, Field(ge=1, le=240), Number, Whole] | None = None
    """The playback rate of the page and of the videos, in frames per second. With `null`, a video plays at its own rate
    and frames at 24."""

    contact_frames: Some[FrameName] | None = None
    """The file names of the frames on the contact sheet. With `null`, they are the first, the middle and the last."""


class PublishingTopic(Topic):
    """Publishing"""

    write_back: Switch = False
    """Write the measurements of each rendered model to MLflow, as a separate run that is linked to the model. That run
    goes into an experiment with the same name and `_dailies` appended. The model's own run is not changed, and nothing
    is written twice."""

    model: Text | None = None
    """The model that `snakemake promote` registers: the name of its folder in `output_dir`, or the unique start of that
    name. `models`, in contrast, selects what is rendered."""

    registered_model: Text | None = None
    """The registered model of MLflow to which `snakemake promote` adds a version. It is created if it does not
    exist."""

    file: Place | None = None
    """The file of votes, exported from a blind test on the page, that `snakemake votes` adds to the leaderboard.
    docs/choosing.md describes it."""

    alias: Text | None = None
    """The alias that `snakemake promote` sets on the new version, such as `champion`. If another version has the alias,
    it is moved, and the previous version is logged and recorded in a tag."""


class MachineTopic(Topic):
    """Machine"""

    device: Annotated[
        Literal["auto", "cuda", "mps", "cpu"]
        | Annotated[str, Field(pattern=r"^cuda:[0-9]+$", description="cuda:N for GPU number N")],
        Word,
    ] = "auto"
    """The device that renders. `auto` takes the first available of cuda, mps and cpu. If you name a device that is
    missing, the invocation fails."""

    shard_frames: Annotated[int, Field(ge=0), Whole] = 0
    """How many frames one job renders, so that several GPUs or nodes can share a model. With 0, one job renders the
    whole sequence. Frames that are already rendered are kept."""

    check_disk: Switch = True
    """Refuse to start if the disk of `output_dir` has less free space than the estimate for missing frames, their
    models, the page and the cached motion of the source."""

    models_on_disk: Annotated[int, Field(ge=2, le=10_000), Whole] = 16
    """How many downloaded models may be on the disk of `output_dir` at once, including those being rendered; a download
    waits for a free slot. Set it above the number of renders and downloads that run at once, so that a GPU does not
    wait for the network."""


class Settings(
    MachineTopic, PublishingTopic, PageTopic, MeasuringTopic, RenderingTopic, LoadingTopic, ModelsTopic, FramesTopic
):
    """Every setting of the workflow, of the right type and within its bounds."""

    model_config = ConfigDict(defer_build=False)

    @field_validator("*", mode="before")
    @classmethod
    def _nothing(cls, given: Any) -> Any:
        """Read the words for no value as None."""
        return None if isinstance(given, str) and given.strip().lower() in NOTHING else given

    @classmethod
    def from_job(cls, config: Mapping[str, Any]) -> "Settings":
        """Return the settings of a job, which Snakemake hands over as ``snakemake.config``, filled by ``as_config``."""
        return cls.model_validate({key: value for key, value in config.items() if key in cls.model_fields})

    @property
    def store_order(self) -> str | None:
        """The order of runs for MLflow; None, which means newest first, if Dailies orders the models."""
        return None if self.order_by.lower().startswith("measured.") else self.order_by

    @property
    def measured_order(self) -> tuple[str, bool] | None:
        """The metric whose mean orders the models, and whether it descends; None if MLflow orders them."""
        match = MEASURED_ORDER.fullmatch(self.order_by.strip())
        return (match[1].lower(), (match[2] or "").upper() == "DESC") if match else None

    def as_config(self) -> dict[str, Any]:
        """Return plain text, numbers, lists and mappings by key, for Snakemake's own ``config``."""
        return {key: _plain(value) for key, value in self}


TOPICS: tuple[type[Topic], ...] = (
    FramesTopic,
    ModelsTopic,
    LoadingTopic,
    RenderingTopic,
    MeasuringTopic,
    PageTopic,
    PublishingTopic,
    MachineTopic,
)
"""The groups of the settings, in the order of the documentation."""


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each key: what a user may write, the default and the description."""
    found = Settings.model_json_schema()["properties"]
    for rule in found.values():
        del rule["title"]
        rule["description"] = " ".join(rule["description"].split())
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def pixel_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that change the pixels of a frame. They are part of every frame's key."""
    config = settings.as_config()
    keys = ["precision", "tiled", "output_format", "transfer"] + (
        [] if settings.tiled is False else ["tile_size", "overlap"]
    )
    faster = [key for key in ("compile", "autotune") if config[key]]
    keys += faster + (["parity_tolerance"] if faster or settings.precision != "fp32" else [])
    return {key: config[key] for key in keys}


def loading_settings(settings: Settings) -> dict[str, Any]:
    """Return what decides which network an artifact becomes, including the code of the user's own functions.

    ``loader_code`` maps each function of ``model_loader`` to the digest of its code. Without ``model_loader`` both keys
    are absent, so that frames from before the key existed stay valid.
    """
    config = settings.as_config()
    keys = ("default_architecture", "model_factory", "python_path", "signatures", "architecture_from")
    folders, loaders = settings.python_path, functions_of(settings.model_loader)
    found = {key: config[key] for key in keys} | {"code": _code_digest(functions_of(settings.model_factory), folders)}
    if loaders:
        code = {function: _code_digest([function], folders) for function in loaders}
        found |= {"model_loader": config["model_loader"], "loader_code": code}
    return found


def functions_of(given: str | Mapping[str, str] | None) -> list[str]:
    """Return the functions that ``model_factory`` or ``model_loader`` names, sorted."""
    return sorted(set(given.values() if isinstance(given, Mapping) else [given] if given else []))


def _code_digest(functions: Iterable[str], python_path: Iterable[str]) -> str | None:
    """Return a digest of the packages that hold the user's functions; None if ``python_path`` holds none of them."""
    packages = {re.split(r"[.:]", function)[0] for function in functions}
    found = {path for package in packages for path in _sources(python_path, package)}
    return files.digest([[str(path), files.sha256_of(path)] for path in sorted(found)]) if found else None


def _sources(python_path: Iterable[str], package: str) -> Iterator[Path]:
    for folder in python_path:
        yield from Path(folder).glob(f"{package}.py")
        yield from Path(folder).glob(f"{package}/**/*.py")
