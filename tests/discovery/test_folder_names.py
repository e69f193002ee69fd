import math

import pytest
from dailies.discovery.folder_names import LONGEST, RESERVED, folder_name, safe
from hypothesis import example, given
from hypothesis import strategies as st

TEMPLATE = "{run_name}_{epoch}ep_loss{train_loss:.4f}_{run_id:.8}"
RUN = {
    "run_id": "abc12345def0678901234567890abcde",
    "run_name": "unet_adamw",
    "architecture": "unet",
    "epoch": 2500,
    "train_loss": 0.0234,
    "val_loss": 0.5,
    "experiment": "copyair",
    "start_time": 1701234567890,
}
NOTHING = dict.fromkeys(RUN) | {"run_id": RUN["run_id"], "run_name": "", "experiment": "copyair"}


def name_of(template=TEMPLATE, taken=(), **changes):
    return folder_name(template, RUN | changes, taken)


def test_the_template_is_filled():
    assert name_of() == "unet_adamw_2500ep_loss0.0234_abc12345"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (TEMPLATE, "abc12345"),
        ("{architecture}-{run_id:.4}", "abc1"),
        ("{run_id:.4}.{val_loss:.2f}", "abc1"),
        ("x_{epoch}ep_{run_id:.4}_y", "x_abc1_y"),
        ("{epoch:04d} {run_id:.4} {train_loss:8.3e}", "abc1"),
        ("{run_name}{architecture}_{experiment}_{start_time}", "copyair"),
        ("{run_name}", RUN["run_id"]),
    ],
)
def test_a_missing_field_is_dropped_with_its_separator(template, name):
    assert folder_name(template, NOTHING, []) == name


@pytest.mark.parametrize(
    ("run_name", "name"),
    [
        ("a/b\\c", "a-b-c"),
        ("../../etc/passwd", "etc-passwd"),
        ("\x1b[31mred\x1b[0m\nline", "31mred-0mline".replace("0m", "0m-")),
        ("--rf -- *", "rf"),
        (".hidden", "hidden"),
        ("trailing. ", "trailing"),
        ("ünïcode 漢字", "ünïcode-漢字"),
        ("e\u0301", "é"),
        ('a{b}c:d|e<f>g"h?', "a-b-c-d-e-f-g-h"),
        ("…", RUN["run_id"]),
    ],
)
def test_a_name_is_safe_to_use_as_a_folder(run_name, name):
    assert name_of("{run_name}", run_name=run_name) == name


def test_a_name_of_five_thousand_characters_keeps_epoch_loss_and_id():
    name = name_of(run_name="漢" * 5000)

    assert name.startswith("漢" * 20 + "_2500ep")
    assert name.endswith("_loss0.0234_abc12345")


def test_two_models_never_share_a_folder():
    taken = []
    for run_id in ("abc12345_1", "abc12345_2", "abc12345_3", "abc12345_4", "other"):
        for run_name in ("Net", "nEt"):
            taken.append(name_of("{run_name}", taken, run_name=run_name, run_id=run_id))

    assert taken[:4] == ["Net", "nEt_abc12345", "Net_2", "nEt_3"]
    assert len({name.casefold() for name in taken}) == len(taken)


def test_a_long_name_that_is_taken_stays_within_the_limit():
    long = "x" * LONGEST
    taken = [long]
    for _ in range(3):
        taken.append(
            folder_name(
                "{experiment}{run_name}{val_loss}", RUN | {"run_name": "x" * 200, "experiment": "x" * 200}, taken
            )
        )

    assert all(len(name) <= LONGEST for name in taken)
    assert len(set(taken)) == 4


@pytest.mark.parametrize("name", ["compare", "Logs", "compare.txt", "logs.tar.gz", "batch_summary.json"])
def test_reserved_names_are_avoided(name):
    given_name = name_of("{run_name}", run_name=name)

    assert given_name.split(".")[0].casefold() not in RESERVED
    assert given_name.casefold().startswith(name.split(".")[0].casefold())


TEXT = st.text(max_size=300)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(
    facts=st.fixed_dictionaries(
        {
            "run_id": TEXT,
            "run_name": TEXT,
            "architecture": st.none() | TEXT,
            "epoch": st.none() | st.integers(0, 10**9),
            "train_loss": NUMBER,
            "val_loss": NUMBER,
            "experiment": TEXT,
            "start_time": st.none() | st.integers(0, 2**53),
        }
    ),
    taken=st.lists(st.text("abAB_.-0", max_size=5), max_size=10),
    template=st.sampled_from(
        [TEMPLATE, "{run_name}", "{experiment}/{run_name}.{val_loss:.2e}", "{architecture} {run_id}"]
    ),
)
@example(facts=NOTHING | {"run_id": ".."}, taken=["model", "MODEL_", "model_2"], template="{run_name}")
def test_any_run_gets_a_new_and_safe_name(facts, taken, template):
    name = folder_name(template, facts, taken)

    assert 0 < len(name.encode()) <= LONGEST
    assert name.casefold() not in {other.casefold() for other in taken}
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t {}')
    assert name[0] not in ".-"
    assert name[-1] not in ". "
    assert name.isprintable()
    assert name.casefold().split(".")[0] not in RESERVED


@given(st.text())
def test_a_safe_name_does_not_change(text):
    assert safe(safe(text)) == safe(text)


def test_numbers_keep_their_format():
    assert name_of("{epoch:05d}_{val_loss:.1e}_{start_time}_{run_id:.3}") == "02500_5.0e-01_1701234567890_abc"
    assert name_of("{train_loss}_{run_id:.3}", train_loss=math.pi) == "3.141592653589793_abc"
