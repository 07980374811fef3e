import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evamm.models.backbones import EVAViT
from evamm.models.variants import resolve_arch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'plan_run.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('plan_run', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['plan_run'] = module
    spec.loader.exec_module(module)
    return module


def kept_per_token(fields, depth):
    """Numbers that torch keeps for the backward pass, parameters not counted."""
    model = EVAViT({**fields, 'depth': depth}, img_size=64, patch_size=8)
    owned = {param.untyped_storage()._cdata for param in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = (storage.nbytes() / 4, tensor)  # the tensor keeps it alive
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(torch.zeros(1, 3, 64, 64))[0]
    assert out.requires_grad
    return sum(size for size, _ in kept.values()) / 65


@pytest.mark.parametrize(
    'fields',
    [
        {'ffn_hidden_dims': 170},
        {'ffn_hidden_dims': 170, 'ffn_norm': True},
        {'ffn_hidden_dims': 256, 'ffn': 'mlp', 'rope': False},
    ],
)
def test_activations_are_what_torch_keeps(tool, fields):
    fields = {'embed_dims': 64, 'num_heads': 2, **fields}
    kept = kept_per_token(fields, 2) - kept_per_token(fields, 1)
    expected = sum(tool.saved_elements(resolve_arch({**fields, 'depth': 1})))
    assert kept == pytest.approx(expected, rel=0.1)


def test_a_plan_keeps_the_total_batch_and_fits(tool):
    recipe = tool.Recipe.from_config(ROOT / 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py')
    assert recipe.images == 100 * 1_281_167 and recipe.total_batch == 1024
    roomy = recipe.plan(8, memory=139, rate=1e15, mfu=0.5)
    assert (roomy.batch_size, roomy.accumulation, roomy.sharded) == (128, 1, False)
    tight = recipe.plan(8, memory=4, rate=1e15, mfu=0.5)
    assert tight.batch_size * tight.accumulation == 128 and tight.accumulation > 1
    assert tight.states + tight.activations <= 4 * 2**30
    assert roomy.days == tight.days == recipe.plan(1, 139, 8e15, 0.5).days
    # 28 GFLOPs per image (6 x 4.67 GMACs), 128 M images, 4 PFLOP/s
    assert roomy.days == pytest.approx(28e9 * 128.1e6 / 4e15 / 86400, rel=0.02)


def test_sharding_is_used_when_the_states_do_not_fit(tool):
    recipe = tool.Recipe.from_config(
        ROOT / 'configs/eva/eva_giant_p14_in21k_medft_8xb16_in1k_336px.py'
    )
    assert recipe.recomputes
    assert recipe.states(1, False) == 22 * recipe.params - 12 * (recipe.params - recipe.trained)
    plan = recipe.plan(8, memory=16, rate=1e15, mfu=0.5)
    assert plan.sharded and 'evamm.FSDP2' in plan.command
    assert recipe.plan(1, memory=16, rate=1e15, mfu=0.5) is None


def test_pairs_are_split_into_parts_and_their_logits_count(tool):
    recipe = tool.Recipe.from_config(
        ROOT / 'configs/eva_clip/eva02_clip_base_p16_64xb2048_merged2b.py'
    )
    assert recipe.total_batch == 131072 and recipe.images == 61036 * 131072
    # 20.5 G in published tables, where the last block computes tokens that nobody reads.
    assert 19e9 < recipe.macs < 20.5e9
    # One process would need the cosines of all pairs: 16 x 131072^2 bytes are 256 GiB.
    assert recipe.logits(1) == 256 * 2**30
    assert recipe.plan(1, memory=139, rate=1e15, mfu=0.5) is None
    plan = recipe.plan(8, memory=139, rate=1e15, mfu=0.5)
    assert plan.batch_size * plan.accumulation * 8 == 131072 and plan.accumulation > 1
    assert f'train_dataloader.batch_size={131072 // 8}' in plan.command
    assert f'micro_batch_size={plan.batch_size}' in plan.command
    assert 'accumulative_counts' not in plan.command
    # Parts cost one more forward pass: 5 instead of 4 with recomputation.
    whole = recipe.plan(64, memory=1000, rate=1e15, mfu=0.5)
    assert whole.accumulation == 1
    assert plan.days * 8 / (whole.days * 64) == pytest.approx(5 / 4)


def test_patch_dropout_halves_the_work_of_the_image_tower(tool):
    name = 'eva02_clip_enormous_p14_144xb800_laion2b'
    recipe = tool.Recipe.from_config(ROOT / f'configs/eva_clip/{name}.py')
    assert recipe.tokens == 129
    assert recipe.macs == pytest.approx(1132e9 / 2 + 23e9, rel=0.02)


def test_a_frozen_trunk_only_runs_forward(tool):
    name = 'eva_giant_p14_clip_linear_probe_8xb400_in1k_224px'
    recipe = tool.Recipe.from_config(ROOT / f'configs/eva/{name}.py')
    assert recipe.frozen and recipe.trained == 1_409_000
    assert recipe.flops(1) == 2 * recipe.macs * recipe.images
    assert recipe.activations(1) == tool.saved_bytes(recipe.arch, 257)


def test_the_table_of_the_docs_is_up_to_date():
    done = subprocess.run([sys.executable, TOOL, '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
