"""The configuration, every path, and what rules ask while jobs are planned: scripts/dailies/planning has the functions."""

import sys
from pathlib import Path

SCRIPTS = str(Path(str(workflow.current_basedir)).parent / "scripts")
sys.path.insert(0, SCRIPTS)  # an installed package may be called dailies, too

import dailies

if Path(dailies.__file__).parents[1] != Path(SCRIPTS):
    raise SystemExit(f"dailies: another package of this name was imported before, {dailies.__file__}; import it later")

from dailies.planning.inputs import Inputs
from dailies.planning.invocation import Invocation
from dailies.planning.outcome import Outcome
from dailies.planning.progress import Progress

sys.path.remove(SCRIPTS)  # what lies beside it must not hide the modules of a workflow that uses this one
sys.path.append(SCRIPTS)

INVOCATION = Invocation(workflow, rules, config)
LAYOUT = INVOCATION.layout
INPUTS = Inputs(INVOCATION, checkpoints)
PROGRESS = Progress(INVOCATION)
OUTCOME = Outcome(INVOCATION, PROGRESS)
