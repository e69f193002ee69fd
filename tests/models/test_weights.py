import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.weights import fill, groups
from helpers.raising import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def network(bias=0.0):
    built = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))
    with torch.no_grad():
        for number, values in enumerate(built.state_dict().values()):
            values.copy_(torch.full_like(values, number + bias + 1))
    return built


STATE, OTHER = network().state_dict(), network(bias=100.0).state_dict()
PARAMETERS = {name: values for name, values in STATE.items() if "running" not in name and "tracked" not in name}
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
DISCRIMINATOR = {"0.weight": torch.zeros(4, 3, 3, 3)}


def filled(content, built=None):
    """Fill a network from what a file holds; its state dict, and what was said."""
    built = built or network(bias=50.0)
    notes = fill(built, groups(content), "a.pth").notes
    return built.state_dict(), notes


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key].to(one[key])) for key in one)


def renamed(function, state=STATE):
    return {function(key): values for key, values in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {**STATE, "epoch": 3, "name": "x"},
        {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER},
        {"state_dict": STATE, "optimizer_states": [OPTIMIZER]},
        {"model": {"state_dict": STATE}},
        {"netG": STATE, "netD": DISCRIMINATOR, "iter": 5},
        {"G": STATE, "D": DISCRIMINATOR},
        {"a": {"b": {"c": {"d": STATE}}}},
        {"nets": [DISCRIMINATOR, STATE]},
        {"0": {k[2:]: v for k, v in STATE.items() if k[0] == "0"}}
        | {"1": {k[2:]: v for k, v in STATE.items() if k[0] == "1"}}
        | {"2": {k[2:]: v for k, v in STATE.items() if k[0] == "2"}}
        | {"optimizer": OPTIMIZER},
    ],
    ids=["bare", "facts", "tutorial", "lightning", "nested", "netG", "G", "deep", "list", "parts"],
)
def test_weights_are_found_wherever_they_are(content):
    state, notes = filled(content)

    assert same(state, STATE)
    assert notes == ()


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"module.{key}",
        lambda key: f"model._orig_mod.{key}",
        lambda key: f"unet.{key}",
        lambda key: f"restorer.net.module.{key}",
        lambda key: key.replace("1.", "1._orig_mod.", 1),
        lambda key: key.replace("2.", "2._checkpoint_wrapped_module.", 1),
        lambda key: "lit.net." + key.replace("2.", "2._fsdp_wrapped_module.", 1),
        lambda key: key.replace("2.", "2.wrapped_by_us.", 1),
    ],
)
def test_prefixes_and_pieces_of_wrappers_are_removed(rename):
    assert same(filled({"state_dict": renamed(rename)})[0], STATE)


def test_a_wrapped_network_takes_weights_without_the_wrapper():
    wrapped = nn.Sequential()
    wrapped.add_module("model", network(bias=9.0))

    state, _ = filled(STATE, wrapped)

    assert same(state, renamed(lambda key: f"model.{key}"))


def test_tensors_under_other_prefixes_are_ignored():
    state = renamed(lambda key: f"generator.{key}")
    state |= {"discriminator.0.weight": torch.zeros(3), "loss.weight": torch.zeros(2)}

    assert same(filled({"state_dict": state})[0], STATE)


@pytest.mark.parametrize("key", ["params_ema", "model_ema", "g_ema", "averaged_model", "shadow", "swa_state", "netEMA"])
def test_averaged_weights_are_preferred_with_a_note(key):
    state, notes = filled({"params": OTHER, "model": OTHER, key: STATE})

    assert same(state, STATE)
    assert notes == (f"averaged weights ({key}) are used",)


@pytest.mark.parametrize("online", ["ema.online_model.", "online_model."])
def test_online_weights_are_not_mistaken_for_their_average(online):
    averaged = online.replace("online", "ema")
    keys = renamed(lambda key: f"{online}{key}", OTHER) | renamed(lambda key: f"{averaged}{key}")

    state, notes = filled(keys | {f"{averaged}step": torch.tensor(3)})

    assert same(state, STATE)
    assert notes[0] == f"averaged weights ({averaged.rstrip('.')}) are used"


@pytest.mark.parametrize(
    ("judge", "generator"),
    [
        ("netD", "netG"),
        ("D", "G"),
        ("D_A", "G_A2B"),
        ("critic", "unet"),
        ("discriminator_ema", "generator"),
        ("d_ema", "g"),
        ("modelDisc", "unet_2d"),
    ],
)
def test_a_discriminator_with_the_same_shapes_is_skipped(judge, generator):
    together = renamed(lambda key: f"{judge}.{key}", OTHER) | renamed(lambda key: f"{generator}.{key}")

    assert same(filled({judge: OTHER, generator: STATE})[0], STATE)
    assert same(filled({"state_dict": together})[0], STATE)


@pytest.mark.parametrize("prefix", ["ema.", "model_ema.", "ema_model.module."])
def test_averaged_weights_beside_the_others_in_one_dict_are_preferred(prefix):
    state, notes = filled(renamed(lambda key: f"model.{key}", OTHER) | renamed(lambda key: f"{prefix}{key}"))

    assert same(state, STATE)
    assert notes == (f"averaged weights ({prefix.rstrip('.')}) are used",)


@pytest.mark.parametrize(
    "averaged",
    [
        {"ema": {"decay": 0.99, "shadow_params": list(PARAMETERS.values()), "num_updates": 3}},
        {"ema": PARAMETERS},
        {"state_dict_ema": {f"model_ema.{name.replace('.', '')}": values for name, values in PARAMETERS.items()}},
    ],
    ids=["shadow_params", "parameters only", "without dots"],
)
def test_averaged_parameters_are_completed_with_plain_statistics(averaged):
    state, notes = filled({"model": OTHER, **averaged})

    assert all(torch.equal(state[name], values) for name, values in PARAMETERS.items())
    assert torch.equal(state["1.running_mean"], OTHER["1.running_mean"])
    assert notes[0].startswith("averaged weights (")


@pytest.mark.parametrize("key", ["netD", "best"])
def test_averaged_parameters_are_completed_with_statistics_of_the_preferred_plain_weights(key):
    state, _ = filled({key: OTHER, "model": STATE, "ema": PARAMETERS})

    assert torch.equal(state["1.running_mean"], STATE["1.running_mean"])


def test_averaged_parameters_are_not_completed_with_those_of_a_discriminator():
    judge = network(bias=300.0).state_dict()

    state, _ = filled({"netD": judge, "model": OTHER, "ema": PARAMETERS})

    assert torch.equal(state["0.weight"], STATE["0.weight"])
    assert torch.equal(state["1.running_mean"], OTHER["1.running_mean"])


def test_of_several_fitting_weights_the_usual_ones_are_used_with_a_note():
    state, notes = filled({"best": OTHER, "state_dict": STATE})

    assert same(state, STATE)
    assert notes == ("the weights under state_dict are used; best would also fit",)


class Renamed(nn.Module):
    """A network that knows the names of its first version."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.new = nn.Conv2d(3, 3, 1)

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version", 1) < 2:
            for part in ("weight", "bias"):
                state[f"{prefix}new.{part}"] = state.pop(f"{prefix}old.{part}") * 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_the_networks_own_loading_decides_and_sees_the_version():
    ones = {f"old.{name}": torch.ones_like(values) for name, values in Renamed().new.state_dict().items()}
    new = Renamed().state_dict()

    assert filled({"state_dict": ones}, Renamed())[0]["new.weight"].unique().tolist() == [2.0]
    assert same(filled({"state_dict": new}, Renamed())[0], new)
    wrapped = renamed(lambda key: f"module.{key}", new)
    torch_saved = type(new)(wrapped)
    torch_saved._metadata = {f"module.{key}".strip("."): value for key, value in new._metadata.items()}
    assert same(filled({"state_dict": torch_saved}, Renamed())[0], new)


def test_arrays_of_numpy_are_weights_too():
    arrays = {key: values.numpy() for key, values in STATE.items()}

    assert same(filled({"params": arrays, "losses": {"all": np.zeros(9)}})[0], STATE)
    assert groups({"losses": {"all": np.zeros(9)}}) == []


class Tied(nn.Module):
    """A network with one tensor under two names, and one without values."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.register_buffer("nothing", torch.zeros(0))


@pytest.mark.parametrize("kept", ["first", "second"])
def test_tied_weights_may_be_saved_under_one_name(kept):
    state = Tied().state_dict()
    left = {key: values for key, values in state.items() if key in {f"{kept}.weight", "first.bias", "second.bias"}}

    assert same(filled({"state_dict": left, "model_state_dict": left}, Tied())[0], state)


def test_weights_without_batch_counters_load():
    old = {key: values for key, values in STATE.items() if "tracked" not in key}

    state, notes = filled(old)

    assert torch.equal(state["1.running_var"], STATE["1.running_var"])
    assert notes == ()


class Windowed(nn.Module):
    """A network that computes a buffer which its former version saved."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.register_buffer("window", torch.ones(2), persistent=False)


def test_buffers_that_the_network_no_longer_saves_are_ignored_with_a_note():
    state = Windowed().state_dict() | {
        "window": torch.zeros(2),
        "conv.index": torch.arange(3),
        "attn_mask": torch.ones(2),
    }

    loaded, notes = filled({"state_dict": state}, Windowed())

    assert loaded.keys() == {"conv.weight", "conv.bias"}
    assert notes == ("buffers in the file that the network computes itself are ignored: window, conv.index, attn_mask",)


def test_unexpected_weights_are_refused():
    with refused(LoadError, "model.weights_misfit", "1 unexpected (conv.gain)"):
        filled({"state_dict": Windowed().state_dict() | {"conv.gain": torch.ones(2)}}, Windowed())


def test_misfits_are_counted_and_named():
    state = {**STATE, "loss.0": torch.zeros(1), "2.weight": torch.zeros(3, 4, 1, 1)}
    del state["0.bias"]

    misfits = ("1 missing (0.bias)", "1 unexpected (loss.0)", "(2.weight 3×4×1×1 instead of 3×2×1×1)")
    with refused(LoadError, "model.weights_misfit", "a.pth", *misfits):
        filled({"state_dict": state})


def test_weights_are_found_among_any_number_of_others():
    optimizer = {"state": {number: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)} for number in range(3000)}}

    state, _ = filled({"optimizer": optimizer, "other": {f"{n}.w": torch.zeros(1) for n in range(3000)}, "net": STATE})

    assert same(state, STATE)


def test_an_optimizers_state_fits_no_network():
    with refused(LoadError, "model.weights_misfit", "8 missing"):
        filled(OPTIMIZER)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(st.sampled_from("modelnt.e"), max_size=12), st.just(torch.zeros(1)), min_size=1, max_size=8)
)
def test_any_names_are_fitted_or_refused(names):
    with refused(LoadError, "model.weights_misfit", "a.pth"):
        filled(names)
