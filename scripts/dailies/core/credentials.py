"""Which environment variables hold credentials."""

import re
from collections.abc import Mapping

NAMES = re.compile(
    r"passw|secret|token|credential|connection_string|access_?key|account_?key|api_?key|_sas$|^mlflow_tracking_username$",
    re.IGNORECASE,
)
"""Names of environment variables that hold a credential: MLflow's, and those of S3, Azure, Google and Databricks."""

IN_ADDRESS = re.compile(r"://[^/\s@]+@")
"""``user:password@`` in an address."""


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that hold no credential, judged by their names and values."""
    return {name: value for name, value in environ.items() if not NAMES.search(name) and not IN_ADDRESS.search(value)}
