"""Every config file parses, and every final one builds its model with the exact size."""

import ast

import pytest

from .common import ALL, FINAL, build_on_meta, load, name_of

# Counts of the official logs and of the closed formula, not of a run of this code.
PARAMETERS = {
    'eva02/eva02_tiny_p14_headless': 5_502_144,
    'eva02/eva02_small_p14_headless': 21_621_120,
    'eva02/eva02_base_p14_headless': 85_758_720,
    'eva02/eva02_base_p16_headless': 85_850_880,
    'eva02/eva02_large_p14_headless': 303_268_800,
    'eva02/eva02_large_p16_headless': 303_391_680,
    'eva02/eva02_tiny_p14_8xb16_in1k': 5_756_584,
    'eva02/eva02_small_p14_8xb16_in1k': 22_129_000,
    'eva02/eva02_base_p14_8xb16_in1k': 87_117_544,
    'eva02/eva02_base_p14_in21k_medft_8xb16_in1k': 87_117_544,
    'eva02/eva02_large_p14_8xb16_in1k': 305_080_232,
    'eva02/eva02_large_p14_m38m_8xb16_in1k': 305_080_232,
    'eva02/eva02_large_p14_in21k_medft_8xb16_in1k': 305_080_232,
    'eva02/eva02_large_p14_m38m_in21k_medft_8xb16_in1k': 305_080_232,
    'eva02/eva02_base_p14_8xb16_in21k': 87_117_544 + 20_841 * 769,
    'eva02/eva02_large_p14_8xb16_in21k': 305_080_232 + 20_841 * 1025,
    'eva02/eva02_large_p14_m38m_8xb16_in21k': 305_080_232 + 20_841 * 1025,
    'eva/eva_giant_p14_headless': 1_011_146_112,
    'eva/eva_giant_p16_headless': 1_011_315_072,
    'eva/eva_giant_p14_8xb16_in21k': 1_041_920_081,
    'eva/eva_giant_p14_clip_8xb16_in1k_224px': 1_012_555_112,
    'eva/eva_giant_p14_clip_8xb16_in1k_336px': 1_013_005_672,
    'eva/eva_giant_p14_in21k_medft_8xb16_in1k_336px': 1_013_005_672,
    'eva/eva_giant_p14_in21k_medft_8xb16_in1k_560px': 1_014_447_464,
    'eva/eva_giant_p14_clip_linear_probe_8xb400_in1k_224px': 1_012_555_112,
    'eva/eva_giant_p14_clip_linear_probe_8xb400_in1k_336px': 1_013_005_672,
    'eva/eva_large_p14_headless': 303_178_752,
    'eva/eva_large_p14_8xb16_in21k': 325_565_777,
    'eva/eva_large_p14_8xb16_in1k_196px': 304_142_312,
    'eva/eva_large_p14_8xb16_in1k_336px': 304_531_432,
    'eva/eva_large_p14_in21k_medft_8xb16_in1k_196px': 304_142_312,
    'eva/eva_large_p14_in21k_medft_8xb16_in1k_336px': 304_531_432,
    'eva/eva_giant_p14_mim_128xb32_merged30m': 1_012_229_632,
    'eva/eva_large_p14_mae_in21k': 316_576_768 + 257 * (1024 + 512),  # two tables, not trained
    'eva02/eva02_tiny_p14_mim_40xb100_in21k': 5_699_968,
    'eva02/eva02_tiny_p14_mim_40xb100_in21k_cached': 5_699_968,
    'eva02/eva02_small_p14_mim_40xb100_in21k': 22_015_744,
    'eva02/eva02_base_p14_mim_32xb64_in21k': 86_546_944,
    'eva02/eva02_large_p14_mim_64xb32_in21k': 304_319_424,
    'eva02/eva02_large_p14_mim_64xb32_merged38m': 304_319_424,
    # mmpretrain's counts; its fine-tuned one leaves the norm of pooled features out.
    'eva_mae_style/eva_mae_style_vit_base_p16_16xb256_coslr_400e_in1k': 111_776_512,
    'eva_mae_style/vit_base_p16_linear_8xb2048_coslr_100e_in1k': 86_567_656,
    'eva_mae_style/vit_base_p16_8xb128_coslr_100e_in1k': 86_566_120 + 2 * 768,
}


@pytest.mark.parametrize('path', ALL, ids=name_of)
def test_parses_and_says_what_it_is(path):
    load(path)
    assert ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))), 'no docstring'


@pytest.mark.parametrize('path', FINAL, ids=name_of)
def test_builds_with_the_exact_size(path):
    model = build_on_meta(load(path))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == PARAMETERS.get(name_of(path), count)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_sizes_cover_every_eva_config():
    families = ('eva/', 'eva02/', 'eva_mae_style/')
    assert set(PARAMETERS) == {name_of(p) for p in FINAL if name_of(p).startswith(families)}


@pytest.fixture(scope='module')
def ours() -> set[str]:
    """Types of evamm that no library has under the same name."""
    from evamm import registry

    nodes = [node for node in vars(registry).values() if isinstance(node, registry.Registry)]
    for node in nodes:
        node.import_from_location()
    names = {name for node in nodes for name in node.module_dict}
    shared = {'AmpOptimWrapper', 'CheckpointHook', 'EMAHook'}
    assert {'EVAViT', 'WarmupCosineLR', *shared} <= names
    return names - shared


def types(value):
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value['type']
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from types(item)


@pytest.mark.parametrize('path', FINAL, ids=name_of)
def test_types_of_ours_carry_the_scope(path, ours):
    """So that a part of any config can be pasted into one of mmpretrain, mmdet or mmseg."""
    assert not ours & set(types(load(path).to_dict()))
