import pytest
from dailies.store.locations import Locations
from hypothesis import example, given
from hypothesis import strategies as st

SERVER = "http://me:hush@tracker:5000/mlflow"
SCHEMES = ["s3", "gs", "abfss", "wasbs", "hdfs", "dbfs"]

LOCAL_PATH, REMAP = "a path on this machine", "set artifact_remap"
NO_ADDRESS = "not an address of files"


def of_server(server=SERVER, **remap):
    return Locations(server, SCHEMES, remap.get("remap", {}))


def on_disk(**remap):
    return Locations(None, SCHEMES, remap.get("remap", {}))


@pytest.mark.parametrize(
    "location",
    [
        "",
        "mlflow-artifacts:/1/run/artifacts",
        "mlflow-artifacts:///1/run",
        "mlflow-artifacts://tracker:5000/1/run",
        "MLFLOW-ARTIFACTS:/1/run",
        "http://tracker:5000/api/2.0/mlflow-artifacts/artifacts/1/a b",
        "HTTP://TRACKER:5000/x",
        "s3://bucket/1/run",
        "S3://bucket/1/run",
        "gs://bucket/x",
        "abfss://files@account.dfs.core.windows.net/x",
        "wasbs://files@account.blob.core.windows.net/x",
        "dbfs:/x",
    ],
)
def test_a_server_may_name_itself_and_the_allowed_schemes(location):
    assert of_server().refusal(location) is None
    assert of_server().folder(location) is None


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc",
        "FILE:///etc",
        "file:/etc",
        "file://localhost/etc",
        "file://tracker:5000/etc",
        "file:etc",
        " file:///etc",
        "\tfi\nle:///etc",
        "/etc",
        "etc",
        "//tracker:5000/etc",
        "./x",
    ],
)
def test_a_server_may_not_name_a_local_path(location):
    text = of_server().refusal(location)

    assert LOCAL_PATH in text
    assert REMAP in text
    assert text.isprintable()
    assert of_server().folder(location) is None
    assert on_disk().refusal(location) is None
    assert on_disk().folder(location) is not None


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("http://evil/x", "http://evil"),
        ("http://tracker/x", "http://tracker"),
        ("http://tracker:5001/x", "http://tracker:5001"),
        ("https://tracker:5000/x", "https://tracker:5000"),
        ("HTTP://tracker.evil:5000/x", "HTTP://tracker.evil:5000"),
        ("mlflow-artifacts://evil:5000/1/run", "mlflow-artifacts://evil:5000"),
        ("mlflow-artifacts://5000/1/run", "mlflow-artifacts://5000"),
        ("MLflow-Artifacts://tracker/1", "MLflow-Artifacts://tracker"),
        ("http:///x", "http://"),
        ("http://[tracker:5000/x", "http://[tracker:5000"),
        ("abfss://files@account.dfs.core.windows.net.evil.org/x", "abfss://***@account.dfs.core.windows.net.evil.org"),
        ("abfss://files@evil/account.dfs.core.windows.net", "abfss://***@evil"),
    ],
)
def test_another_host_is_refused_and_named(location, host):
    text = of_server().refusal(location)

    assert "another host" in text
    assert text.endswith(f"{REMAP}, for example {{{host}: {host}}}")
    assert "another host" in on_disk().refusal(location)


def test_a_host_as_long_as_a_page_leaves_the_refusal_readable():
    text = of_server().refusal(f"http://{'host' * 200}/x")

    assert "another host" in text
    assert len(text) < 500


@pytest.mark.parametrize(
    "location",
    [
        "http://tracker:5000@evil/x",
        "http://tracker:5000\\@evil/x",
        "http://evil\\@tracker:5000/x",
        "http://me:hush@tracker:5000/x",
        "http://tra\tcker:5000/x",
        "http://tracker:5000 /x",
        "http://tracker:5000?@evil/x",
        "runs:/0123/model",
        "RUNS:/0123/model",
        "models:/m-1",
        "models:/name/1",
        "mlflow-artifacts://tracker:5000\n/x",
    ],
)
def test_an_ambiguous_or_indirect_location_is_refused(location):
    assert NO_ADDRESS in of_server().refusal(location)
    assert of_server().refusal(location).isprintable()
    assert "hush" not in of_server().refusal(location)


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "SFTP", "r2", "b2", "viewfs", "bogus", "c"])
def test_a_scheme_that_is_not_allowed_names_the_setting(scheme):
    text = of_server().refusal(f"{scheme}://host/x")

    assert text.startswith(f"{scheme}://host/x, ")
    assert f"{scheme.lower()} is not one of allowed_artifact_schemes (s3, gs, abfss, wasbs, hdfs, dbfs)" in text
    assert on_disk().refusal(f"{scheme}://host/x") == text
    assert Locations(SERVER, [scheme.lower()], {}).refusal(f"{scheme}://host/x") is None
    assert "allowed_artifact_schemes (none); add" in Locations(SERVER, [], {}).refusal("s3://bucket/x")


@pytest.mark.parametrize("location", ["mlflow-artifacts:/1/../../x", "s3://b/%2e%2e/x", "/mnt/../etc", "/mnt\\..\\etc"])
def test_a_location_may_not_leave_its_folder(location):
    remapped = of_server(remap={"/mnt": "/mnt", "s3://b": "/b"})

    assert "leaves its folder with '..'" in remapped.refusal(location)
    assert remapped.folder(location) is None


@pytest.mark.parametrize(
    ("old", "location", "place"),
    [
        ("/mnt/nas", "/mnt/nas/1/run", "/here/1/run"),
        ("/mnt/nas", "file:///mnt/nas/1/a%20b", "/here/1/a b"),
        ("/mnt/nas", "FILE:///mnt/nas/1", "/here/1"),
        ("http://files:80", "http://files:80/1", "/here/1"),
        ("mlflow-artifacts://files:80/", "mlflow-artifacts://files:80/1", "/here/1"),
    ],
)
def test_a_remapped_location_is_trusted(old, location, place):
    locations = of_server(remap={old: "/here"})

    assert locations.refusal(location) is None
    assert locations.place(location) == place
    assert str(locations.folder(location)) == place
    assert locations.refusal("/mnt/nasty") is not None


def test_default_ports_are_the_same_host():
    assert of_server("https://Tracker").refusal("https://tracker:443/x") is None
    assert of_server("http://tracker:80").refusal("http://tracker/x") is None
    assert of_server("https://tracker").refusal("http://tracker:443/x") is not None
    assert of_server("http://[::1]:5000").refusal("mlflow-artifacts://[::1]:5000/x") is None


@given(st.text(max_size=400) | st.from_regex(r"\A[a-z]{1,6}:/{0,3}[ -~]{0,30}", fullmatch=True))
@example("http://[")
@example("x" * 10**5)
@example("file:\u202e\x9b\u2028//etc")
def test_any_location_is_allowed_or_refused_in_one_short_line(location):
    for locations in (of_server(), on_disk()):
        text = locations.refusal(location)
        locations.folder(location)
        assert text is None or (text.isprintable() and len(text) < 1000)
