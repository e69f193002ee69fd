"""Invocation: one run of snakemake, what its command line requests, and how a user's mistake ends it."""

import atexit
import gc
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from snakemake.logging import logger
from snakemake.settings.enums import Quietness, RerunTrigger

from dailies.core import job_environment, logs
from dailies.core.errors import DailiesError
from dailies.planning import command_line
from dailies.planning.config import Settings
from dailies.planning.validation import as_written, validated
from dailies.state import forced_jobs, lock, shown_together, snakemake_records
from dailies.state.layout import Layout

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

GARBAGE = 100_000
"""Threshold of the garbage collector. At the default of 700, it took a fifth of the time of planning 1000 models, and
freed nothing."""

P = ParamSpec("P")
T = TypeVar("T")


class Invocation:
    """One run of snakemake by a user. The processes of its jobs parse the workflow, too, but are not the main one."""

    def __init__(self, workflow: "Workflow", rules: Any, config: dict[str, Any]) -> None:
        """Check the configuration and complete ``config`` with all defaults, for profiles and jobs.

        Args:
            workflow: Snakemake's workflow.
            rules: Snakemake's collection of rules by name.
            config: what the user configured, by key.
        """
        self._workflow = workflow
        self._rules = rules
        self._given = sorted(config)
        self._written_output = str(config.get("output_dir", ""))
        self._warned = self._has_taken_output = False
        self._is_module = not workflow.modifier.is_main_snakefile()
        self.started = time.time()
        self.reasons: list[str] = []
        """Why this workflow ended the invocation."""
        job_environment.tune(cores=self.cores)
        if self.is_main:
            gc.freeze()
            gc.set_threshold(GARBAGE)
        if self.is_silent:  # otherwise an error would leave only an exit code
            logger.addHandler(logs.Errors())
        self.settings = self._settings(config)
        self.layout = Layout(self.settings.output_dir)
        config.update(self.settings.as_config())
        if "downloads" not in workflow.global_resources:  # else --resources gpu=1 allows any number of downloads
            workflow.register_resource("downloads", 4)
        self._handle_options()

    def _settings(self, config: dict[str, Any]) -> Settings:
        entries = self._workflow.config_settings.config_args or ()
        settings = self.call(lambda: validated(as_written(config, entries)))
        output_dir = str(settings.output_dir)
        moved = self._workflow.modifier.path_modifier.replace_prefix(output_dir)
        if moved == output_dir:
            return settings
        # Snakemake does not put the prefix of a module before an absolute path
        return settings.model_copy(update={"output_dir": Path(moved).absolute()})

    def _handle_options(self) -> None:
        """Handle options that request something other than jobs; Snakemake does not pass them to the Snakefile."""
        if not self.is_main:
            return
        if command_line.reports(sys.argv):
            self.call(shown_together.refuse_mixed, self.layout, with_page=self.settings.compare)
        if command_line.has_option(command_line.UNLOCK, sys.argv) and (running := lock.clear(self.layout)):
            self.warn(running)
        if command_line.deletes(sys.argv):
            self.call(lock.take, self.layout)  # Snakemake's own lock does not prevent this
        if command_line.has_option(command_line.DELETE_OUTPUT, sys.argv):
            atexit.register(self._report_what_stays)

    def _report_what_stays(self) -> None:
        if left := command_line.left_by_deletion(self.layout):
            print(f"dailies: {left}", file=sys.stderr)

    @property
    def is_main(self) -> bool:
        """Whether the user started this process; Snakemake starts further ones for jobs."""
        return bool(self._workflow.is_main_process)

    @property
    def is_executed(self) -> bool:
        """Whether the user started this process to run jobs, not for a dry run, a summary or a graph."""
        return self.is_main and self._workflow.executor_plugin is not None and not self._workflow.dryrun

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""
        return bool(self._workflow.local_exec)

    @property
    def runs_jobs_itself(self) -> bool:
        """Whether jobs run on this machine, and with this Python: not in environments that Snakemake creates."""
        return self.is_local and not self._workflow.deployment_settings.deployment_method

    @property
    def is_silent(self) -> bool:
        """Whether Snakemake prints nothing at all, not even errors."""
        return Quietness.ALL in (self._workflow.output_settings.quiet or ()) and not self._workflow.dryrun

    @property
    def is_concise(self) -> bool:
        """Whether what Snakemake prints of each job is left out: jobs run, and the user did not ask for more.

        A workflow that uses this one as a module prints what it printed before.
        """
        output = self._workflow.output_settings
        is_detailed = output.verbose or output.printshellcmds or output.debug_dag or self._is_module
        return self._runs_jobs and not is_detailed

    @property
    def shows_progress(self) -> bool:
        """Whether the user wants to see what is running and what is finished: there is no ``--quiet``."""
        quiet = self._workflow.output_settings.quiet or ()
        return self._runs_jobs and not {Quietness.PROGRESS, Quietness.ALL} & {*quiet}

    @property
    def _runs_jobs(self) -> bool:
        """Whether jobs run, as far as is known: Snakemake's first messages precede its choice of an executor."""
        if self._workflow.executor_plugin is None:
            return self.is_main and not command_line.is_dry(sys.argv)
        return self.is_executed and not self._workflow.touch

    def runs(self, rule: str) -> bool:
        """Return whether Snakemake is about to run a job of a rule."""
        name = self.rule(rule)
        return any(job.rule.name == name for job in self._workflow.dag.needrun_jobs())

    def waiting(self, rule: str) -> list[Mapping[str, str]]:
        """Return the wildcards of all jobs of a rule that will run but have not started."""
        name, scheduler = self.rule(rule), self._workflow.scheduler
        return [job.wildcards_dict for job in scheduler.remaining_jobs if job.rule.name == name]

    @property
    def cores(self) -> int | None:
        """How many threads jobs may use together on this machine; None if there is no limit or others run the jobs."""
        return self._workflow.resource_settings.cores

    @property
    def targets(self) -> set[str]:
        """The rules and files that the user asked for."""
        return set(self._workflow.dag_settings.targets)

    def warn(self, text: str) -> None:
        """Print a warning."""
        logger.warning(f"dailies: {text}")

    def end(self, reason: str) -> NoReturn:
        """End the invocation with one sentence for the user and exit code 1."""
        logger.error(f"dailies: {reason}")
        self.fail(reason)

    def fail(self, reason: str) -> NoReturn:
        """End the invocation with exit code 1, for a reason that is printed already."""
        self.reasons.append(reason)
        raise SystemExit(1)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function; if it raises a DailiesError, end the invocation with its message."""
        try:
            return function(*args, **kwargs)
        except DailiesError as error:
            self.end(str(error))

    def check_configured(self) -> None:
        """End the invocation if there is no configuration, as in a folder other than the project's."""
        if self._is_configured or self._warned:
            return
        missing = f"there is no config/config.yaml in {Path.cwd()}"
        if not self._given:
            self.end(f"{missing}; name your configuration with --configfile, or give its keys with --config")
        self._warned = True
        self.warn(
            f"{missing}, so only --config counts ({', '.join(self._given)}) and all other keys have their defaults; "
            "--configfile names a file"
        )

    @property
    def _is_configured(self) -> bool:
        has_file = self._workflow.overwrite_configfiles or Path("config/config.yaml").exists()
        return bool(has_file or not self.is_main or self._workflow.modifier.skip_configfile)

    def take_output(self) -> None:
        """End the invocation if another one works in the output folder."""
        if self._has_taken_output or not self.is_executed:
            return
        self._has_taken_output = True
        self.call(lock.take, self.layout)
        if lock.remove_stale(lock.OF_SNAKEMAKE, self.layout):
            self.warn("an earlier invocation was killed and left this folder locked; it is unlocked now")
        snakemake_records.respell(snakemake_records.RECORDS, self._written_output, self.layout.output_dir)
        if RerunTrigger.PARAMS not in self._workflow.dag_settings.rerun_triggers:
            self.warn(
                "--rerun-triggers is without params, which show what failed, what has changed and what is forced, so "
                "some of it may not be rendered"
            )

    @cached_property
    def forced(self) -> forced_jobs.Forced:
        """What this invocation has to run again. Jobs on a node read it from a file: their command line differs."""
        if not self.is_main:
            return forced_jobs.announced(self.layout.forced)
        if self._workflow.touch:
            return forced_jobs.Forced()
        self.take_output()
        asked = self._workflow.dag_settings
        names = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
        rules = [rule.name for rule in self._workflow.rules]
        forced = forced_jobs.requested(everything=asked.forceall, names=names, rules=rules)
        if self.is_executed:
            forced_jobs.announce(forced, self.layout.forced)
        return forced

    def is_forced(self, names: Iterable[str], outputs: Iterable[Path | str]) -> bool:
        """Return whether the user forces one of these rules, or the job of one of these files, to run again."""
        used = [found for name in names if (found := self.rule(name))]
        return self.forced.covers(used, map(Path, outputs))

    def rule(self, name: str) -> str | None:
        """Return the full name of a rule; None if a workflow that uses this one as a module leaves it out."""
        return getattr(self._rules, name).rule.name if self._rules.has(name) else None

    def plans(self, checkpoint: str) -> bool:
        """Return whether this process plans or runs a checkpoint.

        On a node, Snakemake evaluates its parameters for the jobs of all other rules as well.
        """
        allowed = self._workflow.dag_settings.allowed_rules
        return not allowed or any(rule.endswith(checkpoint) for rule in allowed)

    def refuses_devices(self) -> bool:
        """Return whether a missing device must end this invocation because its jobs run on this machine."""
        return self.is_local and self.is_main and not self._workflow.dryrun
