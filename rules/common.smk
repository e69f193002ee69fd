"""Read the configuration, and create the objects through which rules call scripts/dailies/planning."""

import sys
from pathlib import Path

SCRIPTS = str(Path(str(workflow.current_basedir)).parent / "scripts")
sys.path.insert(0, SCRIPTS)  # first: another installed package may be called dailies

import dailies

if Path(dailies.__file__).parents[1] != Path(SCRIPTS):
    raise SystemExit(
        f"dailies: another package named dailies is already imported, {dailies.__file__}; import it after this workflow"
    )

from dailies.planning.inputs import Inputs
from dailies.planning.invocation import Invocation
from dailies.planning.final_report import FinalReport
from dailies.planning.progress import Progress
from dailies.planning.fork_server_starter import ForkServerStarter

sys.path.remove(SCRIPTS)  # last: the scripts must not shadow the modules of a workflow that imports this one
sys.path.append(SCRIPTS)

INVOCATION = Invocation(workflow, rules, config)
LAYOUT = INVOCATION.layout
INPUTS = Inputs(INVOCATION, checkpoints)
PROGRESS = Progress(INVOCATION)
FORK_SERVER_STARTER = ForkServerStarter(INVOCATION)
FINAL_REPORT = FinalReport(INVOCATION, PROGRESS)
