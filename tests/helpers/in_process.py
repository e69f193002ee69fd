"""What an invocation does, stage by stage, in this process: the functions that the adapters call, always in full.

Snakemake decides which of them are due; tests in ``tests/workflow`` show that it does.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from dailies.discovery.discover import discover
from dailies.discovery.download import download
from dailies.discovery.take_snapshot import take_snapshot
from dailies.frames import scan, sequence
from dailies.planning.config import Settings, loading_settings, pixel_settings
from dailies.planning.validation import validated
from dailies.render.job import Job, render
from dailies.state.collect import describe, summarize
from dailies.state.layout import Layout
from dailies.state.records import DiscoveryIndex

from helpers.studio import Studio


def render_all(studio: Studio, **config: Any) -> None:
    """Render every model of a studio over every frame, and write metadata and summary; ``config`` changes settings."""
    settings = validated(studio.config | config)
    layout = Layout(settings.output_dir)
    read_frames(settings, layout)
    discover(settings, fingerprint=take_snapshot(settings, layout).fingerprint, layout=layout)
    models = DiscoveryIndex.load(layout.index).models
    with _no_imports_left():
        for model in models:
            _render(settings, layout, model)
    summarize([layout.metadata(model) for model in models], output=layout.summary)


def read_frames(settings: Settings, layout: Layout) -> None:
    """Read the sequence, as the checkpoint ``sequence`` does."""
    frames = scan.scan(
        settings.input_dir,
        on_bad_frame=settings.on_bad_frame,
        cache=layout.scan,
        output_format=settings.output_format,
        layer=settings.layer,
    )
    sequence.save(frames, layout.sequence)


def _render(settings: Settings, layout: Layout, model: str) -> None:
    pixels, loading = pixel_settings(settings), loading_settings(settings)
    download(settings, layout=layout, model=model, settings=pixels, loading=loading)
    shards = list(sequence.shards(layout.sequence, settings.shard_frames))
    for shard in shards:
        render(
            Job(
                layout=layout,
                model=model,
                shard=shard,
                shard_frames=settings.shard_frames,
                input_dir=settings.input_dir,
                settings=pixels,
                loading=loading,
                batch=settings.batch,
                device=settings.device,
                threads=1,
                attempt=1,
                trust_code=settings.trust_code,
            )
        )
    describe(
        layout.run(model),
        [layout.outcome(model, shard) for shard in shards],
        sequence=layout.sequence,
        manifests=layout.manifests(model),
        folder=layout.frames(model),
        output=layout.metadata(model),
    )
    layout.weights(model).discard()


@contextmanager
def _no_imports_left() -> Iterator[None]:
    """Forget the user's modules that are imported meanwhile, and where they were found."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        added = tuple(set(sys.path) - set(path))
        new = {name: sys.modules[name] for name in set(sys.modules) - modules}
        for name in [name for name, module in new.items() if _place(module).startswith(added)] if added else []:
            del sys.modules[name]
        sys.path[:] = path


def _place(module: ModuleType) -> str:
    """Return where a module was found."""
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), ""))
