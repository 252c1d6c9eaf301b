"""SpecSemNet: the published architecture and the compact one, on random weights."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from specsem import model
from specsem.model import SpecSemConfig, SpecSemNet, TowerConfig
from specsem.semantic import embed, layers, load_clip_tower
from specsem.spectral import high_pass

TINY_TOWER = TowerConfig(image_size=32, patch_size=8, width=32, layers=3, heads=2, output_dim=16)
COMPACT = SpecSemConfig(
    spectral="conv",
    semantic=TINY_TOWER,
    conv_widths=(8, 16, 24),
    conv_depths=(1, 1),
    gate_hidden=8,
    temporal_heads=4,
    temporal_depth=1,
    temporal_difference=True,
    pooling="mean-std",
    crop_side=48,
    crops=2,
    frame_fit="squash",
)
TOWERS = SpecSemConfig(semantic=TINY_TOWER, gate_hidden=16, temporal_heads=4)


def inputs(config: SpecSemConfig, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    side, crop, n = config.semantic.image_size, config.crop_side, config.crops
    boxes = torch.rand(batch, n, 4, generator=generator).sort(-1).values
    return (
        torch.randint(0, 256, (batch, 8, n, crop, crop, 3), dtype=torch.uint8, generator=generator),
        torch.randint(0, 256, (batch, 8, side, side, 3), dtype=torch.uint8, generator=generator),
        boxes,
    )


@pytest.fixture(scope="module")
def b32() -> SpecSemNet:
    torch.manual_seed(0)
    return SpecSemNet(SpecSemConfig())


class TestPublished:
    """``specsem-b32``."""

    def test_twelve_gates(self, b32: SpecSemNet) -> None:
        assert len(b32.branches[0].merging) == 12
        assert all(m.kind == "gate" for m in b32.branches[0].merging)
        assert (
            b32.branches[0].merging[0].pair.sem.in_features + b32.branches[0].merging[0].pair.spec.in_features
            == 1536
        )
        assert b32.branches[0].merging[0].last.in_features == 384
        assert b32.branches[0].merging[0].last.out_features == 768

    def test_cost_is_the_paper_s(self, b32: SpecSemNet) -> None:
        """74.2 GMAC a clip at T = 8 (method, section 1). Counted with gradients on: PyTorch's fused inference
        path hides its products from the counter."""
        x = inputs(b32.config, batch=1)
        for parameter in b32.semantic.parameters():
            assert not parameter.requires_grad
        with FlopCounterMode(display=False) as counter:
            torch.nn.Module.train(b32)  # also the semantic twin, for the same reason
            b32(*x)
        b32.eval()
        assert counter.get_total_flops() / 2e9 == pytest.approx(74.2, rel=0.03)

    def test_near_identity_start(self, b32: SpecSemNet) -> None:
        """With the gates as they start, the spectral stream is nearly what it is without any."""
        x = inputs(b32.config, batch=1, seed=1)
        bare = SpecSemNet(b32.config.variant(merging="spectral-only"))
        missing = bare.load_state_dict(b32.state_dict(), strict=False)
        assert not missing.missing_keys
        with torch.no_grad():
            gated, plain = (
                net.branches[0].pooled(net.residual(x[1]), net.look(x[1]), x[2])
                for net in (b32.eval(), bare.eval())
            )
        cosine = torch.nn.functional.cosine_similarity(gated, plain, dim=-1)
        assert cosine.min() > 0.99
        assert (gated.norm() / plain.norm() - 1).abs() < 0.3

    def test_the_semantic_tower_is_plain_open_clip_and_gets_no_gradient(self, b32: SpecSemNet) -> None:
        frames = inputs(b32.config, batch=1)[1]
        image = torch.rand(2, 3, 224, 224)
        tokens = embed(b32.semantic, image)
        for block in layers(b32.semantic):
            tokens = block(tokens)
        with torch.no_grad():
            expected = b32.semantic(image)
            ours = b32.semantic.ln_post(tokens[:, 0]) @ b32.semantic.proj
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)

        before = {k: v.clone() for k, v in b32.semantic.state_dict().items()}
        b32.train()
        b32(frames[:, :, None], frames, torch.tensor([[[0.0, 0, 1, 1]]])).sum().backward()
        assert all(p.grad is None for p in b32.semantic.parameters())
        assert b32.branches[0].merging[0].last.weight.grad is not None
        assert not b32.semantic.training
        assert all(torch.equal(v, before[k]) for k, v in b32.semantic.state_dict().items())
        b32.zero_grad()
        b32.eval()

    def test_loads_a_checkpoint_in_openai_s_layout(self, b32: SpecSemNet, tmp_path: Path) -> None:
        torch.manual_seed(3)
        clip = open_clip.create_model("ViT-B-32-quickgelu")
        path = tmp_path / "ViT-B-32.pt"
        torch.save({key: value.half() for key, value in clip.state_dict().items()}, path)
        tower = load_clip_tower(pretrained=str(path))
        net = SpecSemNet(b32.config)
        net.semantic.load_state_dict(tower.state_dict())
        image = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            torch.testing.assert_close(net.semantic(image), clip.visual.eval()(image), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("config", [COMPACT, TOWERS], ids=["compact", "towers"])
class TestBoth:
    """What holds of either shape."""

    def test_one_training_step_lowers_the_loss(self, config: SpecSemConfig) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(config).train()
        x, y = inputs(config, batch=4), torch.tensor([0.0, 1, 0, 1])
        optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)

        def loss() -> torch.Tensor:
            return torch.nn.functional.binary_cross_entropy_with_logits(net(*x), y)

        first = loss()
        first.backward()
        optimiser.step()
        assert loss() < first

    def test_a_window_s_logit_does_not_depend_on_its_batch(self, config: SpecSemConfig) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(config).eval()
        x = inputs(config, batch=5)
        with torch.no_grad():
            together = net(*x)
            alone = torch.cat([net(*(part[i : i + 1] for part in x)) for i in range(5)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(
        "changes",
        [
            *({"merging": m} for m in ("suppress", "concat", "spectral-only", "semantic-only")),
            *({"temporal": t} for t in ("mean", "conv")),
            *({"radius": r} for r in (0.0, 16.0, 112.0)),
            *({"residual_norm": n} for n in ("none", "std")),
            *({"pooling": p} for p in ("mean", "mean-std")),
        ],
        ids=str,
    )
    def test_every_ablation_runs_and_learns(self, config: SpecSemConfig, changes: dict[str, object]) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(config.variant(**changes)).train()
        logit = net(*inputs(config))
        assert logit.shape == (2,)
        logit.sum().backward()
        (branch,) = net.branches
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in branch.temporal.parameters()) or (
            branch.head.weight.grad is not None
        )

    def test_members_are_averaged_and_share_the_semantic_tower(self, config: SpecSemConfig) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(config.variant(members=3)).eval()
        calls = []
        next(iter(layers(net.semantic))).register_forward_hook(lambda *_: calls.append("semantics"))
        x = inputs(config)
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "high_pass", lambda *args: calls.append("residual") or high_pass(*args))
            logit, features, *_ = net.judge(*x)
        assert sorted(calls) == ["residual", "semantics"]  # once for all members
        assert features.shape == (2, net.feature_width)
        each = []
        for number, branch in enumerate(net.branches):
            single = SpecSemNet(config).eval()
            single.semantic.load_state_dict(net.semantic.state_dict())
            single.branches[0].load_state_dict(branch.state_dict())
            with torch.no_grad():
                own, own_features, *_ = single.judge(*x)
            each.append(own)
            width = own_features.shape[1]
            torch.testing.assert_close(own_features, features[:, number * width : (number + 1) * width])
        torch.testing.assert_close(logit, torch.stack(each).mean(0))

    def test_a_config_survives_json(self, config: SpecSemConfig) -> None:
        import json

        assert SpecSemConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


class TestCompact:
    """``specsem-compact``."""

    def test_the_gate_looks_at_what_lies_under_the_crop(self) -> None:
        """A tower map that is its own coordinates, sampled under a crop, gives the crop's coordinates."""
        from specsem.model import _under_crops

        side = 64
        at = (torch.arange(side) + 0.5) / side
        map_BDhw = torch.stack([at.expand(side, side), at[:, None].expand(side, side)])[None]
        boxes = torch.tensor([[[0.25, 0.5, 0.75, 0.9]]])
        under = _under_crops(map_BDhw, boxes, (4, 5))
        assert under.shape == (1, 1, 4, 5, 2)
        torch.testing.assert_close(under[0, 0, 0, :, 0], 0.25 + 0.5 * (torch.arange(5) + 0.5) / 5)
        torch.testing.assert_close(under[0, 0, :, 0, 1], 0.5 + 0.4 * (torch.arange(4) + 0.5) / 4)

    def test_the_spectral_branch_does_not_see_a_constant(self) -> None:
        net = SpecSemNet(COMPACT)
        gray = torch.full((1, 8, 2, 48, 48, 3), 77, dtype=torch.uint8)
        assert net.residual(gray).abs().max() < 1e-4

    def test_the_temporal_difference_of_a_still_is_zero(self) -> None:
        net = SpecSemNet(COMPACT)
        still = inputs(COMPACT)[0][:, :1].expand(-1, 8, -1, -1, -1, -1)
        residual = net.residual(still)
        assert residual.shape[3] == 6
        assert residual[:, :, :, :3].abs().max() > 0.1
        assert residual[:, :, :, 3:].abs().max() < 1e-5

    def test_semantics_that_stand_for_all_frames_are_mapped_once(self) -> None:
        net = SpecSemNet(COMPACT).eval()
        seen = []
        for merging in net.branches[0].merging:
            merging.pair.sem.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:3]))
        with torch.no_grad():
            net(*inputs(COMPACT))
        assert seen == [(2, 4, 4)] * 2  # B and the places of the tower: not T frames, nor those under N crops

    def test_the_semantic_head_reads_the_frame_the_crops_and_their_motion_in_one_run(self) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(COMPACT.variant(semantic_head=True, members=2)).eval()
        seen = []
        next(iter(layers(net.semantic))).register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        crops, frames, boxes = inputs(COMPACT)
        with torch.no_grad():
            said = net.judge(crops, frames, boxes)
            still = net.judge(crops[:, 4:5].expand_as(crops), frames, boxes)
            plain = SpecSemNet(COMPACT)
            plain.semantic.load_state_dict(net.semantic.state_dict())
            maps, theirs = plain.look(frames), net._look_closely(crops, frames)[0]
        assert seen[0] == 2 * (1 + 2 * 2)  # B windows: a frame, two crops and their motion
        changed = (said.shown_BD != still.shown_BD).reshape(2, 2, 3, 2 * 32).any(-1)  # B, layer, view
        assert not changed[:, :, :2].any()
        assert changed[:, :, 2].all()
        for one, other in zip(maps, theirs, strict=True):
            torch.testing.assert_close(one, other)

    def test_a_stride_leaves_out_frames_of_the_spectral_branches_alone(self) -> None:
        torch.manual_seed(0)
        config = COMPACT.variant(temporal_difference=False, temporal="mean", temporal_heads=1)
        every, fourth = SpecSemNet(config).eval(), SpecSemNet(config.variant(spectral_stride=4)).eval()
        fourth.load_state_dict(every.state_dict())
        crops, frames, boxes = inputs(config)
        with torch.no_grad():
            kept = every.judge(crops[:, [2, 6]], frames, boxes)
            torch.testing.assert_close(fourth.judge(crops, frames, boxes).logit_B, kept.logit_B)
        with pytest.raises(ValueError, match="leave out frames"):
            SpecSemNet(COMPACT.variant(spectral_stride=2))

    @pytest.mark.parametrize("other", [{"merging": "spectral-only"}, {"spectral": "tower"}], ids=str)
    def test_a_semantic_head_wants_a_tower_that_is_run(self, other: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="semantic"):
            SpecSemNet(COMPACT.variant(temporal_difference=False, semantic_head=True, **other))

    def test_a_still_has_a_gray_motion_image(self) -> None:
        still = inputs(COMPACT)[1][:, :1].expand(-1, 8, -1, -1, -1)
        assert model.motion_image(still).sub(0.5).abs().max() == 0

    def test_semantic_dropout_hides_the_scene_in_training_only(self) -> None:
        torch.manual_seed(0)
        net = SpecSemNet(COMPACT.variant(semantic_dropout=1.0))
        for merging in net.branches[0].merging:
            torch.nn.init.normal_(merging.last.weight)
        crops, frames, boxes = inputs(COMPACT)
        others = inputs(COMPACT, seed=1)[1]
        with torch.no_grad():
            net.train()
            torch.testing.assert_close(net(crops, frames, boxes), net(crops, others, boxes))
            net.eval()
            assert not torch.allclose(net(crops, frames, boxes), net(crops, others, boxes), atol=1e-4)
