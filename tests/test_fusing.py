"""A fused network says what the plain one does; in bfloat16, nearly so."""

import pytest
import torch

from specsem import fusing
from specsem.fusing import fuse, lower
from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig

SMALL = TowerConfig(image_size=32, patch_size=16, width=32, layers=2, heads=2, output_dim=32)
COMPACT = SpecSemConfig(
    spectral="conv",
    semantic=SMALL,
    gate_hidden=8,
    conv_widths=(8, 16, 16),
    conv_depths=(0, 1),
    pooling="mean-std",
    temporal="mean",
    crop_side=48,
    crops=2,
    members=2,
    semantic_head=True,
)
TOWER = SpecSemConfig(semantic=SMALL, gate_hidden=8, temporal_heads=2, temporal_depth=1)

Pixels = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def pixels(config: SpecSemConfig) -> Pixels:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    side = config.crop_side
    boxes = torch.tensor([0.1, 0.2, 0.6, 0.9]).expand(3, config.crops, 4)
    return draw(3, 8, config.crops, side, side, 3), draw(3, 8, 32, 32, 3), boxes


@pytest.fixture(params=[COMPACT, TOWER], ids=["conv", "tower"])
def net(request: pytest.FixtureRequest) -> SpecSemNet:
    """With norms that are not the identity, and gates and heads that say something."""
    torch.manual_seed(1)
    net = SpecSemNet(request.param).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    for branch in net.branches:
        for merging in branch.merging:
            torch.nn.init.normal_(merging.last.weight, std=0.5)
        if net.config.semantic_head:
            branch.semantic_head.alpha_S.fill_(3.0)
            branch.semantic_head.gamma.fill_(0.5)
    return net


@torch.inference_mode()
def test_it_says_the_same(net: SpecSemNet) -> None:
    given = pixels(net.config)
    plain, fused = net.judge(*given, gates=True), fuse(net).judge(*given, gates=True)
    assert plain.logit_B.std() > 1e-3  # windows differ: there is something to get wrong
    for expected, said in zip(plain, fused, strict=True):
        torch.testing.assert_close(said, expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_without_the_primitive_it_says_the_same(net: SpecSemNet, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pixels(net.config)
    expected = net.judge(*given).logit_B
    monkeypatch.setattr(fusing, "_has_conv_gelu", lambda: False)
    torch.testing.assert_close(fuse(net).judge(*given).logit_B, expected, atol=2e-5, rtol=1e-4)


def test_fusing_leaves_the_network_as_it_was(net: SpecSemNet) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fused = fuse(net)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_scaled_block_stays_as_it_is(net: SpecSemNet) -> None:
    blocks = net.semantic.transformer.resblocks
    blocks[0].ls_1 = torch.nn.Linear(32, 32)
    given = pixels(net.config)
    fused = fuse(net)
    assert type(fused.semantic.transformer.resblocks[0]) is type(blocks[0])
    assert type(fused.semantic.transformer.resblocks[1]) is not type(blocks[1])
    with torch.inference_mode():
        expected = net.judge(*given).logit_B
        torch.testing.assert_close(fused.judge(*given).logit_B, expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_lowered_products_move_a_logit_by_little(net: SpecSemNet) -> None:
    given = pixels(net.config)
    lowered = fuse(net)
    lower(lowered)
    with torch.autocast("cpu", torch.bfloat16):
        said = lowered.judge(*given)
    expected = net.judge(*given)
    assert said.logit_B.dtype == torch.float32
    torch.testing.assert_close(said.logit_B, expected.logit_B, atol=0.02, rtol=0.0)
    assert not torch.equal(said.logit_B, expected.logit_B)  # it was lowered
