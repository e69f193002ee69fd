"""The workflow on a real Slurm: two nodes with a GPU each, the profiles as they are, jobs killed in every way.

Most of the time is waiting, so the scenes are played beside each other; a test looks at what one of them has left.
"""

import os
import re
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from helpers import REPOSITORY, slurm_cluster
from helpers.guarded import ADMIN, BARE, BUCKET, READER, guarded, logged_in, login
from helpers.images import write_frame
from helpers.requires import lacking
from helpers.slurm_cluster import Cluster
from helpers.stages import FRAMES, PATIENCE, Stage, until
from helpers.studio import jobs, kill_group
from helpers.weights import grey_checkpoint
from PIL import Image

pytestmark = pytest.mark.slurm

SECRET = "hush-5f2c"

ROUND = 12
"""Frames of the first round of a knockout: the least that separates models."""

# a test's cluster answers at once and its frames are small; all else is as the profiles have it
SITE = ("--set-threads", "infer=1", "compare=1", "--latency-wait", "5", "--retries", "0")
SLURM = ("--workflow-profile", str(REPOSITORY / "profiles" / "slurm"), *SITE)
SLURM += ("--slurm-init-seconds-before-status-checks", "1")
GENERIC = ("--workflow-profile", str(REPOSITORY / "profiles" / "cluster-generic"), *SITE)
GENERIC += ("--seconds-between-status-checks", "1")

RECORDER = """#!/bin/sh
# sbatch, which notes how it is called, and lets Python say on the node what it imports
echo "$@" >> "{notes}"
export PYTHONPROFILEIMPORTTIME=1
exec {sbatch} "$@"
"""


@dataclass
class Scene:
    """What is left of a scene: its studio and what each invocation printed, with its exit code."""

    stage: Stage
    invocations: list[tuple[int, str]] = field(default_factory=list)
    seen: SimpleNamespace = field(default_factory=SimpleNamespace)
    """What was observed in the middle."""


def of(stage: Stage, cluster: Cluster, rule: str) -> dict[int, dict[str, str]]:
    """The jobs of a studio and a rule, by number: comments name the model's folder, which ends with the run's id."""
    ids = [run[:8] for run in stage.runs.values()]
    return {
        number: job
        for number, job in sorted(cluster.jobs().items())
        if job["comment"].startswith(f"rule_{rule}_") and any(run in job["comment"] for run in ids)
    }


def _settled(renders: dict[int, dict[str, str]]) -> bool:
    """Whether Slurm has decided on every one of three or more renders."""
    waiting = {"Resources", "Priority"}
    return len(renders) > 2 and all(job["state"] == "RUNNING" or job["reason"] in waiting for job in renders.values())


def play_farm(farm: Stage, cluster: Cluster) -> Scene:
    """Two models in shards; nothing; a lost frame and a device that is not there."""
    scene = Scene(farm)
    cues = [farm.cue(0), farm.cue(3)]
    farm.start(shard_frames=3)
    farm.until(lambda: len({event.job for event in farm.events()}) >= 2, "two renders")
    farm.until(lambda: _settled(of(farm, cluster, "infer")), "a third that runs or is told to wait")
    scene.seen.at_once = farm.events()
    scene.seen.jobs = of(farm, cluster, "infer")
    for cue in cues:
        cue.unlink()
    scene.invocations.append(farm.ended())
    scene.seen.scripts = [cluster("scontrol", "write", "batch_script", str(job), "-") for job in cluster.jobs()]

    notes = len((farm.root / "submitted").read_text().splitlines())
    scene.invocations.append(farm.run(shard_frames=3))
    scene.seen.idle = len((farm.root / "submitted").read_text().splitlines()) - notes

    (farm.folder(farm.runs["one"]) / "frame_000000.png").unlink()
    scene.invocations.append(farm.run(shard_frames=3, device="cuda"))
    return scene


def play_accidents(stage: Stage, cluster: Cluster) -> Scene:
    """Three shards of one model: the first is cancelled, twice, the second needs too much memory, the third time."""
    scene = Scene(stage)
    cues = {1: stage.cue(1), 3: stage.cue(3, "starve"), 5: stage.cue(5)}
    stage.start("--retries", "1", shard_frames=2)
    first, last = stage.reached(1), stage.reached(5)
    for frame in (0, 2, 4):
        stage.placed("one", frame)
    cluster("scontrol", "update", f"JobId={last.job}", "EndTime=now")
    cluster("scancel", first.job)
    stage.until(lambda: cluster.jobs()[int(last.job)]["state"] == "TIMEOUT", "the end of its time")
    cues[5].unlink()
    cluster("scancel", stage.reached(1, times=2).job)
    scene.invocations.append(stage.ended())
    scene.seen.jobs = of(stage, cluster, "infer")
    scene.seen.events = stage.events()
    cues[1].unlink()
    scene.invocations.append(stage.run(shard_frames=2))
    return scene


def play_orphans(stage: Stage, cluster: Cluster, others_are_done: Event) -> Scene:
    """The invocation is killed, its job goes on; the next takes over; then its node goes down."""
    scene = Scene(stage)
    cue = stage.cue(2)
    stage.start()
    orphan = stage.reached(2)
    stage.placed("one", 1)
    kill_group(stage.started[-1])
    stage.start("--retries", "1")
    heir = stage.reached(2, times=2)
    assert others_are_done.wait(PATIENCE)
    cluster("scontrol", "update", f"NodeName={heir.node}", "State=DOWN", "Reason=test")
    scene.seen.jobs = [orphan, heir, stage.reached(2, times=3)]
    cue.unlink()
    scene.invocations.append(stage.ended())
    cluster("scontrol", "update", f"NodeName={heir.node}", "State=RESUME")
    return scene


def guarded_stage(root: Path, blank: Path, cluster: Cluster) -> Stage:
    """Log two models to a server with login whose artifacts are in S3; the studio knows both by its environment."""
    server, name = guarded(), f"slurm_{uuid.uuid4().hex[:8]}"
    environment = cluster.environment | BARE | dict(server.keys) | login(READER)
    store = {"uri": server.uri, "experiment": name, "location": f"s3://{BUCKET}/{name}"}
    with logged_in(ADMIN, **server.keys | BARE):
        stage = Stage(root, blank, SLURM, "one", "two", store=store, **environment)
        server.show(stage.experiment)
    stage.config["device"] = "auto"
    return stage


def play_generic(stage: Stage, cluster: Cluster) -> Scene:
    """With commands of one's own: a job is cancelled, then the invocation is interrupted, then all is forced, once."""
    scene = Scene(stage)
    cue = stage.cue(4)
    stage.start()
    event = stage.reached(4)
    stage.placed("one", 3)
    scene.seen.gpu = (event.node, event.gpu)
    cluster("scancel", event.job)
    scene.invocations.append(stage.ended())
    stage.start()
    event = stage.reached(4, times=2)
    os.killpg(stage.started[-1].pid, signal.SIGINT)
    scene.invocations.append(stage.ended())
    until(lambda: cluster.jobs()[int(event.job)]["state"] == "CANCELLED", "the end of what was interrupted")
    cue.unlink()
    scene.invocations += [stage.run("-R", "infer"), stage.run("-n")]
    return scene


def play_knockout(stage: Stage, cluster: Cluster) -> Scene:
    """Two models render a first round on nodes, a node chooses one of them, and that one renders all frames there."""
    scene = Scene(stage)
    clean = stage.root / "clean"
    clean.mkdir()
    for number in range(ROUND + 1):
        write_frame(stage.frames / f"frame_{number:06d}.png", number, (40, 36))
        Image.new("RGB", (40, 36), (40 + number % 3,) * 3).save(clean / f"frame_{number:06d}.png")
    config = {"knockout_frames": ROUND, "finalists": 1, "metrics": "psnr", "model_factory": None}
    scene.invocations.append(stage.run(reference_dir=str(clean), **config))
    scene.seen.jobs = of(stage, cluster, "infer")
    scene.seen.decisions = [job for job in cluster.jobs().values() if job["comment"] == "rule_knockout"]
    scene.invocations.append(stage.run("-n", reference_dir=str(clean), **config))
    return scene


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := slurm_cluster.obstacle():
        lacking("slurm", reason)
    with slurm_cluster.running() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def others_are_done() -> Event:
    return Event()


@pytest.fixture(scope="module")
def scenes(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    others_are_done: Event,
    blank_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[Scene]]]:
    """Every scene that one of the tests to come looks at, being played."""
    root = tmp_path_factory.mktemp("scenes")
    bin_ = root / "bin"
    bin_.mkdir()
    recorder = bin_ / "sbatch"
    recorder.write_text(RECORDER.format(notes=root / "farm" / "submitted", sbatch=shutil.which("sbatch")))
    recorder.chmod(0o755)
    known = cluster.environment
    watched = known | {"PATH": f"{bin_}:{os.environ['PATH']}", "MLFLOW_TRACKING_PASSWORD": SECRET}
    keep = ("--slurm-keep-successful-logs",)
    fake = ("--set-resources", "infer:gpu_model=fake")
    farm = Stage(root / "farm", blank_store, (*SLURM, *keep, *fake), "one", "two", **watched)
    # the nodes know the store by the environment alone
    farm.environment["MLFLOW_TRACKING_URI"] = farm.uri
    farm.config |= {"mlflow_uri": "none", "device": "auto"}
    reference = Stage(root / "reference", blank_store, ("--cores", "1"), "one", "two")
    accidents = Stage(root / "accidents", blank_store, SLURM, "one", **known)
    orphans = Stage(root / "orphans", blank_store, SLURM, "one", **known)
    generic = Stage(root / "generic", blank_store, GENERIC, "one", **known)
    generic.config["device"] = "auto"
    knockout = Stage(root / "knockout", blank_store, SLURM, **known)
    for name, level in {"best": -0.3, "other": 0.3}.items():
        knockout.add_run(name, grey_checkpoint(level))
    remote = guarded_stage(root / "remote", blank_store, cluster)
    stages = [farm, reference, accidents, orphans, generic, knockout, remote]
    plays = {
        "farm": lambda: play_farm(farm, cluster),
        "accidents": lambda: play_accidents(accidents, cluster),
        "generic": lambda: play_generic(generic, cluster),
        "knockout": lambda: play_knockout(knockout, cluster),
        "reference": lambda: Scene(reference, [reference.run()]),
        "remote": lambda: Scene(remote, [remote.run(shard_frames=3)]),
        "orphans": lambda: play_orphans(orphans, cluster, others_are_done),
    }
    wanted = {name for item in request.session.items for name in item.fixturenames}
    with ThreadPoolExecutor(len(stages)) as pool:
        try:
            yield {name: pool.submit(play) for name, play in plays.items() if name in wanted}
        finally:
            others_are_done.set()
            for stage in stages:
                stage.kill()


@pytest.fixture(scope="module")
def reference(scenes) -> Stage:
    """The same models, rendered here, unsharded."""
    scene = scenes["reference"].result()
    assert scene.invocations[0][0] == 0, scene.invocations[0][1]
    return scene.stage


@pytest.fixture(scope="module")
def farm(scenes) -> Scene:
    return scenes["farm"].result()


@pytest.fixture(scope="module")
def accidents(scenes) -> Scene:
    return scenes["accidents"].result()


@pytest.fixture(scope="module")
def generic(scenes) -> Scene:
    return scenes["generic"].result()


@pytest.fixture(scope="module")
def knockout(scenes) -> Scene:
    return scenes["knockout"].result()


@pytest.fixture(scope="module")
def remote(scenes) -> Scene:
    return scenes["remote"].result()


@pytest.fixture(scope="module")
def orphans(scenes, farm, accidents, generic, knockout, remote, others_are_done) -> Scene:
    others_are_done.set()
    return scenes["orphans"].result()


def test_two_gpus_have_two_renders_at_once_and_each_its_own(farm):
    running = [job for job in farm.seen.jobs.values() if job["state"] == "RUNNING"]
    held = {event.job: (event.node, event.gpu) for event in farm.seen.at_once}

    assert len(running) == 2
    assert sorted(held.values()) == [("n1", "0"), ("n2", "0")]
    assert all(event.gpu == "0" for event in farm.stage.events())


def test_shards_on_nodes_have_the_bytes_of_a_whole_render_here(farm, reference):
    for model in ("one", "two"):
        pictures = reference.pictures(model)
        assert len(set(pictures.values())) == FRAMES
        farm_pictures = farm.stage.pictures(model)
        # the last invocation is to render the one that was deleted, and cannot
        missing = {"frame_000000.png"} if model == "one" else set()
        assert pictures.keys() - farm_pictures.keys() == missing
        assert farm_pictures == {name: data for name, data in pictures.items() if name not in missing}


def test_models_of_a_server_with_login_and_artifacts_in_s3_are_rendered_in_shards(remote, reference):
    code, told = remote.invocations[0]
    assert code == 0, told
    assert [line["status"] for line in remote.stage.summary()] == ["success"] * 2
    for model in ("one", "two"):
        assert remote.stage.pictures(model) == reference.pictures(model)
    events = remote.stage.events()
    assert len({event.job for event in events}) == 4
    assert {event.secret for event in events} == {None}
    assert {event.outside for event in events} == {READER[1]}
    kept = [READER[1], guarded().keys["AWS_SECRET_ACCESS_KEY"]]
    assert not any(secret in told for secret in kept)
    written = [path for path in remote.stage.root.rglob("*") if path.is_file() and path.name != "events"]
    assert not [path for path in written if any(secret.encode() in path.read_bytes() for secret in kept)]


def test_every_shard_is_submitted_once_and_then_nothing(farm):
    (code, output), (idle, nothing) = farm.invocations[:2]

    assert code == 0, output
    assert len(jobs(output, "infer")) == 4
    assert (idle, farm.seen.idle) == (0, 0)
    assert "Nothing to be done" in nothing


def test_a_device_is_looked_for_on_the_node_and_not_on_the_head(farm):
    code, output = farm.invocations[2]

    assert code == 1
    assert "Error in rule infer" in output
    assert "failed: device is cuda, but torch 2" in output


def test_no_credential_is_in_a_job_script_or_on_a_command_line(farm):
    submitted = (farm.stage.root / "submitted").read_text()

    assert len(submitted.splitlines()) >= 6
    assert len(farm.seen.scripts) >= 6
    assert SECRET not in submitted + "".join(farm.seen.scripts)
    # it does reach the node, for downloads; a render does not see it
    assert {(event.outside, event.secret) for event in farm.stage.events()} == {(SECRET, None)}


def test_no_node_asks_mlflow(farm):
    folder = farm.stage.root / ".snakemake" / "slurm_logs"
    logs = {rule: [path.read_text() for path in folder.glob(f"rule_{rule}/*/*.log")] for rule in ("download", "infer")}

    for log in logs["download"] + logs["infer"]:
        assert re.search(r"import time:.* snakemake$", log, re.MULTILINE)
        assert not re.search(r"import time:.* mlflow", log)
    assert len(logs["download"]) >= 2
    assert len(logs["infer"]) >= 4


def test_a_job_killed_for_memory_or_time_or_by_hand_is_tried_again_and_goes_on_at_its_frame(accidents):
    output = accidents.invocations[0][1]
    events = accidents.seen.events
    tried = [[job for job in accidents.seen.jobs.values() if job["comment"].endswith(f"_{n}")] for n in (1, 2, 3)]

    assert [len(attempts) for attempts in tried] == [2, 2, 2], output
    assert [attempts[1]["state"] for attempts in tried] == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert all(megabytes(second) > 1.9 * megabytes(first) for first, second in tried)
    # what was there was never rendered again, and the frame in hand was
    assert Counter(event.frame for event in events) == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}


def test_a_job_killed_again_is_reported_with_the_reason(accidents):
    code, output = accidents.invocations[0]

    assert code == 1
    for reason in ("SLURM status is: 'CANCELLED'", "SLURM status is: 'TIMEOUT'", "exceeded memory limit"):
        assert reason in output
    assert "dailies: the reason is above, and in" in output


def test_the_next_invocation_renders_the_frame_that_was_lost(accidents, reference):
    code, output = accidents.invocations[1]
    after = accidents.stage.events()[len(accidents.seen.events) :]

    assert code == 0, output
    assert [event.frame for event in after] == [1]
    assert accidents.stage.pictures("one") == reference.pictures("one")
    assert [line["status"] for line in accidents.stage.summary()] == ["success"]


def test_commands_of_ones_own_submit_watch_and_cancel_and_forced_jobs_know_it_on_their_node(generic, reference):
    (cancelled, report), (interrupted, _), (code, output), (_, planned) = generic.invocations

    assert generic.seen.gpu in {("n1", "0"), ("n2", "0")}
    assert (cancelled, interrupted, code) == (1, 1, 0), output
    assert "Error in rule infer" in report
    assert Counter(event.frame for event in generic.stage.events()) == {0: 2, 1: 2, 2: 2, 3: 2, 4: 3, 5: 1}
    assert "Nothing to be done" in planned
    assert generic.stage.pictures("one") == reference.pictures("one")


def test_a_knockout_is_decided_on_a_node_and_only_finalists_render_the_rest(knockout):
    (code, output), (_, planned) = knockout.invocations
    stage = knockout.stage

    assert code == 0, output
    assert f"knockout by PSNR on {ROUND} frames: 1 finalist, 1 model knocked out; best" in output
    assert {name: len(stage.written(run)) for name, run in stage.runs.items()} == {"best": ROUND + 1, "other": ROUND}
    assert [job["state"] for job in knockout.seen.decisions] == ["COMPLETED"]
    assert [job["state"] for job in knockout.seen.jobs.values()] == ["COMPLETED"] * 3  # two first rounds, and the rest
    assert "Nothing to be done" in planned


def test_after_a_killed_head_the_next_takes_over_and_a_lost_node_is_replaced_with_the_same_bytes(orphans, reference):
    [(code, output)] = orphans.invocations
    orphan, heir, last = orphans.seen.jobs

    assert code == 0, output
    assert "it is unlocked now" in output
    assert "NODE_FAIL" in output
    assert last.node != heir.node
    assert len({orphan.job, heir.job, last.job}) == 3
    assert {
        number: count for number, count in Counter(e.frame for e in orphans.stage.events()).items() if number < 3
    } == {
        0: 1,
        1: 1,
        2: 3,
    }
    assert orphans.stage.pictures("one") == reference.pictures("one")


def megabytes(job: dict[str, str]) -> float:
    """The memory that a job asked for."""
    return float(job["memory"][:-1]) * {"M": 1, "G": 1024}[job["memory"][-1]]
