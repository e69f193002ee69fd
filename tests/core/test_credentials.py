import pytest
from dailies.core.credentials import without_credentials


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_USERNAME", "ann"),
        ("MLFLOW_TRACKING_PASSWORD", "hush"),
        ("MLFLOW_TRACKING_TOKEN", "hush"),
        ("MLFLOW_TRACKING_URI", "http://ann:hush@host"),
        ("AWS_ACCESS_KEY_ID", "hush"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_SESSION_TOKEN", "hush"),
        ("AZURE_STORAGE_CONNECTION_STRING", "hush"),
        ("AZURE_STORAGE_ACCESS_KEY", "hush"),
        ("AZURE_CLIENT_SECRET", "hush"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/ann/key.json"),
        ("DATABRICKS_TOKEN", "hush"),
    ],
)
def test_variables_that_grant_access_to_a_store_are_left_out(name, value):
    assert without_credentials({name: value, "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("MLFLOW_TRACKING_URI", "http://host:5000"),
        ("OMP_NUM_THREADS", "2"),
        ("HOME", "/home/ann@lab"),
    ],
)
def test_other_variables_stay(name, value):
    assert without_credentials({name: value}) == {name: value}
