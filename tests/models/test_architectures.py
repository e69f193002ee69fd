"""The built-in networks: the keys of their checkpoints, their sizes, and answers known by hand."""

import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.architectures.catalog import ARCHITECTURES, build, settings_in
from dailies.models.weights import groups
from helpers.raising import refused
from torch import nn

SMALL_NAFNET = {
    "size": "small",
    "width": 4,
    "encoder_blocks": [1, 2],
    "middle_blocks": 1,
    "decoder_blocks": [1, 1],
}


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def double_conv(prefix: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    keys = {}
    for conv, norm, channels in ((0, 1, inputs), (3, 4, outputs)):
        keys[f"{prefix}.conv.{conv}.weight"] = (outputs, channels, 3, 3)
        keys[f"{prefix}.conv.{conv}.bias"] = (outputs,)
        keys |= {
            f"{prefix}.conv.{norm}.{name}": (outputs,) for name in ("weight", "bias", "running_mean", "running_var")
        }
        keys[f"{prefix}.conv.{norm}.num_batches_tracked"] = ()
    return keys


def block(prefix: str, c: int) -> dict[str, tuple[int, ...]]:
    keys = {
        "norm1.weight": (c,),
        "norm1.bias": (c,),
        "conv1.weight": (c, c, 1, 1),
        "conv1.bias": (c,),
        "conv2.weight": (c, 1, 3, 3),
        "conv2.bias": (c,),
        "sca.conv.weight": (c // 2, c // 2, 1, 1),
        "sca.conv.bias": (c // 2,),
        "conv3.weight": (c, c // 2, 1, 1),
        "conv3.bias": (c,),
        "beta": (1, c, 1, 1),
        "norm2.weight": (c,),
        "norm2.bias": (c,),
        "conv4.weight": (2 * c, c, 1, 1),
        "conv4.bias": (2 * c,),
        "conv5.weight": (c, c, 1, 1),
        "conv5.bias": (c,),
        "gamma": (1, c, 1, 1),
    }
    return {f"{prefix}.{key}": shape for key, shape in keys.items()}


@pytest.mark.parametrize(("config", "b"), [({"base_channels": 4}, 4), ({}, 64)])
def test_unet_has_the_keys_of_its_checkpoints(config, b):
    assert shapes(ARCHITECTURES["unet"](**config)) == (
        double_conv("inc", 3, b)
        | double_conv("down1.1", b, 2 * b)
        | double_conv("down2.1", 2 * b, 4 * b)
        | double_conv("down3.1", 4 * b, 8 * b)
        | double_conv("conv3", 12 * b, 4 * b)
        | double_conv("conv2", 6 * b, 2 * b)
        | double_conv("conv1", 3 * b, b)
        | {"outc.weight": (3, b, 1, 1), "outc.bias": (3,)}
    )


def test_nafnet_has_the_keys_of_its_checkpoints():
    assert shapes(ARCHITECTURES["nafnet"](**SMALL_NAFNET, dropout=0.1)) == (
        {"intro.weight": (4, 3, 3, 3), "intro.bias": (4,)}
        | block("encoders.0.0", 4)
        | {"downs.0.weight": (8, 4, 2, 2), "downs.0.bias": (8,)}
        | block("encoders.1.0", 8)
        | block("encoders.1.1", 8)
        | {"downs.1.weight": (16, 8, 2, 2), "downs.1.bias": (16,)}
        | block("middle_blks.0", 16)
        | {"ups.0.0.weight": (32, 16, 1, 1)}
        | block("decoders.0.0", 8)
        | {"ups.1.0.weight": (16, 8, 1, 1)}
        | block("decoders.1.0", 4)
        | {"ending.weight": (3, 4, 3, 3), "ending.bias": (3,)}
    )


@pytest.mark.parametrize(
    ("size", "width", "encoder", "middle", "decoder"),
    [
        ("small", 32, [1, 1, 1, 2], 6, [1, 1, 1, 1]),
        ("base", 64, [2, 2, 4, 8], 12, [2, 2, 2, 2]),
        ("large", 64, [2, 2, 6, 12], 16, [2, 2, 2, 2]),
    ],
)
def test_nafnet_sizes(size, width, encoder, middle, decoder):
    with torch.device("meta"):
        network = ARCHITECTURES["nafnet"](size=size)
    assert network.intro.out_channels == width
    assert [len(blocks) for blocks in network.encoders] == encoder
    assert len(network.middle_blks) == middle
    assert [len(blocks) for blocks in network.decoders] == decoder
    assert network.middle_blks[0].conv1.in_channels == 16 * width


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (8, 9)])
@pytest.mark.parametrize(
    ("name", "config"),
    [("unet", {"base_channels": 2}), ("nafnet", SMALL_NAFNET)],
)
def test_output_has_the_size_of_the_input(name, config, size):
    network = ARCHITECTURES[name](**config, in_channels=4, out_channels=1).eval()
    with torch.inference_mode():
        answer = network(torch.rand(2, 4, *size) * 2 - 1)
    assert answer.shape == (2, 1, *size)
    assert answer.abs().max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 17)])
def test_nafnet_takes_inputs_smaller_than_its_padding(size):
    network = ARCHITECTURES["nafnet"](size="small", width=2, middle_blocks=1).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_nafnet_pads_by_reflection_to_the_right_and_below():
    network = stirred(ARCHITECTURES["nafnet"](**SMALL_NAFNET))
    image = torch.rand(1, 3, 6, 7)
    reflected = nn.functional.pad(image, (0, 1, 0, 2), mode="reflect")
    with torch.inference_mode():
        assert torch.equal(network(image), network(reflected)[..., :6, :7])


@pytest.mark.parametrize("name", ["unet", "nafnet"])
def test_last_layer_of_zeros_outputs_the_tanh_of_its_bias(name):
    config = {"unet": {"base_channels": 2}, "nafnet": SMALL_NAFNET}[name]
    network = ARCHITECTURES[name](**config).eval()
    last = network.outc if name == "unet" else network.ending
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([-0.5, 0.0, 2.0]))
        answer = network(torch.rand(1, 3, 16, 24))
    expected = torch.tanh(torch.tensor([-0.5, 0.0, 2.0])).view(1, 3, 1, 1).expand(1, 3, 16, 24)
    torch.testing.assert_close(answer, expected)


def test_nafnet_block_starts_as_the_identity():
    network = ARCHITECTURES["nafnet"](**SMALL_NAFNET).eval()
    image = torch.randn(1, 4, 8, 8)
    assert torch.equal(network.encoders[0](image), image)


def test_nafnet_block_follows_its_formula():
    block = stirred(ARCHITECTURES["nafnet"](**SMALL_NAFNET)).encoders[0][0]
    x = torch.randn(1, 4, 5, 6)

    def norm(x, layer):
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return scaled * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)

    with torch.no_grad():
        inner = block.conv2(block.conv1(norm(x, block.norm1)))
        gated = inner[:, :2] * inner[:, 2:]
        attended = gated * block.sca.conv(gated.mean((2, 3), keepdim=True))
        middle = x + block.beta * block.conv3(attended)
        inner = block.conv4(norm(middle, block.norm2))
        expected = middle + block.gamma * block.conv5(inner[:, :4] * inner[:, 4:])
        torch.testing.assert_close(block(x), expected)


def test_unet_concatenates_the_upsampled_before_the_skip():
    network = ARCHITECTURES["unet"](base_channels=2).eval()
    seen = []
    network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.inc.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.inference_mode():
        network(torch.rand(1, 3, 16, 16))
    skip, joined = seen
    assert joined.shape == (1, 6, 16, 16)
    assert torch.equal(joined[:, 4:], skip)


def test_dropout_does_nothing_in_evaluation():
    plain = stirred(ARCHITECTURES["nafnet"](**SMALL_NAFNET))
    dropping = ARCHITECTURES["nafnet"](**SMALL_NAFNET, dropout_rate=0.9).eval()
    dropping.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain(image), dropping(image))
        assert not torch.equal(plain(image), dropping.train()(image))


@pytest.mark.parametrize(
    ("name", "config", "code", "words"),
    [
        ("unet", {"base_channels": "64"}, "model.build_failed", "unet"),
        ("nafnet", {"size": "huge"}, "model.unknown_size", "small, base, large"),
        ("nafnet", {"size": "small", "width": 7}, "model.odd_width", "7"),
        ("nafnet", {"size": "small", "encoder_blocks": [1]}, "model.uneven_levels", "nafnet"),
        ("nafnet", {"size": "small", "middle_blocks": [1]}, "model.build_failed", "nafnet"),
    ],
)
def test_an_invalid_model_config_is_named(name, config, code, words):
    with refused(LoadError, code, words):
        build(name, config)


def test_unknown_settings_are_ignored():
    assert build("unet", {"base_channels": 2, "depth": 5}).outc.in_channels == 2


@pytest.mark.parametrize("name", ["unet", "nafnet"])
def test_settings_are_read_from_the_weights(name):
    sizes = {"unet": {"in_channels": 1, "out_channels": 4, "base_channels": 3}}
    sizes["nafnet"] = {"in_channels": 1, "out_channels": 4, "width": 6}
    sizes["nafnet"] |= {"encoder_blocks": [1, 2], "middle_blocks": 3, "decoder_blocks": [2, 1]}
    weights = {f"net.{key}": values for key, values in build(name, sizes[name]).state_dict().items()}

    assert settings_in(name, groups({"state_dict": weights})) == [sizes[name]]


def stirred(network: nn.Module) -> nn.Module:
    """Give every parameter a random value, those that start at zero or one included."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()
