"""Labels: models of a sweep can be told apart by short names and by the params in which they differ."""

import itertools
from dataclasses import dataclass, field

import pytest
from dailies.state.labels import LONGEST_NAME, Label, labels, shortest


@dataclass(frozen=True)
class Run:
    """What labels are made of."""

    run_name: str
    run_id: str = ""
    params: dict[str, str] = field(default_factory=dict)


def named(*names: str) -> list[str]:
    """The names that models with these names get, in order."""
    return [label.name for label in labels({f"m{n}": Run(name) for n, name in enumerate(names)}).values()]


def params(*all_params: dict[str, str]) -> list[str]:
    """The params that models of one name show, in order."""
    runs = {f"m{number}": Run("same", params=each) for number, each in enumerate(all_params)}
    return [label.params for label in labels(runs).values()]


def test_24_runs_of_a_sweep_have_24_different_labels_made_of_what_differs():
    grid = itertools.product(("0.001", "3e-4", "1e-4", "1e-5"), ("0", "0.05", "0.1"), ("l1", "l2"))
    runs = {
        f"sweep_{place:08x}": Run(
            "copyair_sweep_unet", params={"training.lr": lr, "optim.weight_decay": wd, "loss": loss, "epochs": "100"}
        )
        for place, (lr, wd, loss) in enumerate(grid)
    }

    found = labels(runs)

    assert len(set(found.values())) == 24
    assert found["sweep_00000000"].params == "lr 1e-3 · wd 0 · loss l1"
    assert found["sweep_0000000b"].params == "lr 3e-4 · wd 0.1 · loss l2"


def test_the_common_beginning_is_dropped_in_whole_words():
    assert named("unet_adamw_l1", "unet_adamw_l2", "unet_adam_l1") == ["adamw_l1", "adamw_l2", "adam_l1"]
    assert named("unet", "unet_large") == ["unet", "unet_large"]
    assert named("a_1", "a_2") == ["a_1", "a_2"]
    assert named("unet_x8", "unet_x16") == ["x8", "x16"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("sweep_lr0.004_a", "sweep_lr0.01_a"), ["lr0.004_a", "lr0.01_a"]),
        (("sweep_lr1e-3_a", "sweep_lr1e-4_a"), ["lr1e-3_a", "lr1e-4_a"]),
        (("unet.v1.2", "unet.v1.3"), ["v1.2", "v1.3"]),
        (("long-common-name-one-0.25", "long-common-name-two-0.125"), ["one-0.25", "two-0.125"]),
        (
            ("one_different_name_1.5e-3", "two_other_name_2.5e-3"),
            ["one_different_name_1.5e-3", "two_other_name_2.5e-3"],
        ),
    ],
)
def test_numbers_are_not_cut(names, expected):
    assert named(*names) == expected


def test_a_common_end_and_the_middle_of_long_names_are_left_out_and_what_differs_stays():
    assert named("sigma1_cosine_ema0.999", "sigma2_cosine_ema0.999") == ["sigma1…", "sigma2…"]
    long = [f"{first}{'x' * 40}{middle}{'y' * 40}z" for first in "ab" for middle in "cd"]

    found = named(*long)

    assert len(set(found)) == 4
    assert max(map(len, found)) <= LONGEST_NAME


@pytest.mark.parametrize(
    "meaningless", ["/data/out/{}", "1700000000{}", "{{'a': {}}}", "0123456789abcdef{}", "x" * 40 + "{}"]
)
def test_paths_times_digests_and_prose_do_not_crowd_out_what_tells_models_apart(meaningless):
    found = params(*({"a": meaningless.format(n), "seed": str(n), "width": str(32 * (n % 2 + 1))} for n in range(2)))

    assert found == ["width 32", "width 64"]


def test_a_seed_is_shown_only_if_nothing_else_tells_models_apart():
    assert params({"seed": "1"}, {"seed": "2"}) == ["seed 1", "seed 2"]
    assert params({"seed": "1", "lr": "0.1"}, {"seed": "2", "lr": "0.2"}) == ["lr 0.1", "lr 0.2"]
    assert params(*({"seed": s, "lr": lr} for s in "12" for lr in ("0.1", "0.2"))) == [
        "lr 0.1 · seed 1",
        "lr 0.2 · seed 1",
        "lr 0.1 · seed 2",
        "lr 0.2 · seed 2",
    ]


def test_params_that_say_the_same_as_another_are_not_repeated():
    assert params({"lr": "1", "lr_copy": "a"}, {"lr": "2", "lr_copy": "b"}) == ["lr 1", "lr 2"]


def test_a_number_is_short_and_the_same_however_it_is_written():
    assert params({"lr": "0.001"}, {"lr": "1e-3"}, {"lr": "0.00025"}) == ["lr 1e-3", "lr 1e-3", "lr 2.5e-4"]
    assert params({"steps": "1000000"}, {"steps": "64"}) == ["steps 1e6", "steps 64"]
    assert params({"lr": "0.10000001"}, {"lr": "0.10000002"}) == ["lr 0.10000001", "lr 0.10000002"]


def test_params_of_one_last_name_keep_the_whole_key():
    grid = [{"g.width": g, "d.width": d} for g in "12" for d in "12"]

    assert params(*grid)[1] == "d.width 2 · g.width 1"


def test_models_that_nothing_else_tells_apart_get_the_id_of_their_run_or_a_digest_of_their_folder():
    ids = {"a": "0123abcd" * 4, "b": "4567abcd" * 4, "b_last": "4567abcd" * 4, "c": "89ababcd" * 4}
    found = labels({folder: Run("other" if folder == "c" else "same", run_id) for folder, run_id in ids.items()})

    names = [label.name for label in found.values()]
    assert (names[0], names[3]) == ("same 0123abcd", "other")
    assert len(set(names)) == 4


def test_a_sentence_uses_short_names_or_else_params_or_else_both():
    def texts(**runs: Run) -> list[str]:
        return list(shortest(labels(runs)).values())

    wide, narrow = {"width": "64"}, {"width": "32"}
    assert texts(a=Run("base", params=wide), b=Run("large", params=narrow)) == ["base", "large"]
    assert texts(a=Run("same", params=wide), b=Run("same", params=narrow)) == ["width 64", "width 32"]
    assert texts(a=Run("x" * 25, params=wide), b=Run("y" * 25, params=wide)) == ["x" * 25, "y" * 25]
    assert texts(a=Run("same", params=wide), b=Run("same", params=narrow), c=Run("other", params=wide)) == [
        "same (width 64)",
        "same (width 32)",
        "other (width 64)",
    ]


def test_names_that_print_badly_are_cleaned_and_an_empty_one_is_the_folders():
    assert named("a\x1b[31m\nb", "") == ["a b", "m1"]
    assert [label.name for label in labels({"folder": Run("")}).values()] == ["folder"]


@pytest.mark.parametrize(("most", "text"), [(50, "unet_charbonnier (lr 1e-3)"), (22, "unet_c…nnier (lr 1e-3)")])
def test_a_label_without_room_loses_of_its_name(most, text):
    short = Label(name="unet_charbonnier", params="lr 1e-3").within(most)

    assert len(short) <= most
    assert short == text


def test_a_label_is_never_longer_than_there_is_room():
    assert len(Label(name="unet_charbonnier", params="lr 1e-3 · wd 0").within(12)) == 12


def test_short_names_keep_the_end_that_all_have_in_common():
    named = labels({name: Run(run_name=name) for name in ("unet_adamw", "nafnet_adamw")})

    assert [label.name for label in named.values()] == ["unet_adamw", "nafnet_adamw"]
