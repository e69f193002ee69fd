"""Input functions of the rules; most of what they do is shown by the workflow's own tests."""

import subprocess
import sys

from helpers import REPOSITORY


def test_a_head_node_plans_without_the_libraries_of_the_nodes():
    code = (
        "import sys\n"
        "from dailies.planning import inputs, invocation, outcome\n"
        "print(*{'mlflow', 'torch', 'numpy', 'scipy', 'PIL', 'OpenImageIO', 'av', 'cv2'} & sys.modules.keys())"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == ""
