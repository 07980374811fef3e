import shutil

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

import evamm.registry  # noqa: F401
from evamm.engine.errors import ConfigError
from evamm.engine.strategies import compile_blocks, find_blocks


class Classifier(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = MODELS.build(
            {
                'type': 'evamm.EVAViT',
                'arch': {'embed_dims': 16, 'depth': 5, 'num_heads': 2},
                'img_size': 16,
                'patch_size': 4,
                **options,
            }
        )
        self.backbone.init_weights()

    def forward(self, x):
        return self.backbone(x)[-1]


class Counter:
    """A backend that counts the programs it is given."""

    def __init__(self, backend='aot_eager'):
        self.count = 0
        self.backend = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph, inputs):
        self.count += 1
        return self.backend(graph, inputs)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(model, x):
    torch.manual_seed(1)
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    return [out.detach()] + [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ('options', 'kinds'),
    [
        ({}, 1),
        # The first block never drops; the rates of the others are not part of the program.
        ({'drop_path_rate': 0.4, 'with_cp': True}, 2),
        (
            {
                'drop_path_rate': 0.4,
                'window_size': 2,
                'window_blocks': (0, 1, 3),
                'with_cls_token': False,
                'freeze_patch_embed': True,
            },
            3,
        ),
    ],
)
def test_equal_blocks_are_compiled_once_and_give_the_same_gradients(options, kinds):
    x = torch.randn(4, 3, 16, 16)
    expected = step(Classifier(**options).train(), x)
    model = Classifier(**options).train()
    names = list(model.state_dict())
    counter = Counter()
    assert compile_blocks(model, backend=counter) == 5
    found = step(model, x)
    assert counter.count == kinds
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


def test_evaluation_needs_one_program_for_all_blocks():
    model = Classifier(drop_path_rate=0.4).eval()
    counter = Counter()
    compile_blocks(model, backend=counter)
    with torch.no_grad():
        model(torch.randn(2, 3, 16, 16))
    assert counter.count == 1


def test_other_sizes_do_not_stop_a_run():
    """More kinds of input than torch allows by default."""
    model = Classifier(drop_path_rate=0.4).train()
    compile_blocks(model, backend='eager', dynamic=False)
    for batch in range(2, 7):
        model(torch.randn(batch, 3, 16, 16))


@pytest.mark.skipif(shutil.which('g++') is None, reason='inductor needs a C++ compiler')
def test_inductor_computes_the_same():
    x = torch.randn(2, 3, 16, 16)
    model = Classifier().eval()
    with torch.no_grad():  # the backward pass would take most of the time
        expected = model(x)
        compile_blocks(model)
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


def test_blocks_are_found_everywhere_and_by_name():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = Classifier()
            self.teacher = Classifier().requires_grad_(False)
            self.neck = nn.ModuleList([nn.Linear(2, 2)])

    model = Pair()
    names = [f'{who}.backbone.blocks.{i}' for who in ('student', 'teacher') for i in range(5)]
    assert list(find_blocks(model)) == names
    assert list(find_blocks(model, ['neck'])) == ['neck.0']
    assert list(find_blocks(model, ['student.backbone'])) == ['student.backbone']
    with pytest.raises(ConfigError, match="'student.trunk' is no module of Pair"):
        find_blocks(model, ['student.trunk'])
    with pytest.raises(ConfigError, match='name the modules'):
        find_blocks(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match='unknown key modes'):
        compile_blocks(model, modes='default')


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(x) / 2


@MODELS.register_module()
class CompilableToy(BaseModel):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Half(), Half()])
        self.head = nn.Linear(6, 2)

    def get_layer_depth(self, name, prefix=''):
        return 0, 3

    def forward(self, inputs, labels, mode='tensor'):
        for block in self.blocks:
            inputs = block(inputs)
        return {'loss': nn.functional.cross_entropy(self.head(inputs), labels)}


@pytest.mark.parametrize('by_key', [True, False])
def test_one_config_key_or_a_hook_compiles(toy_cfg, make_runner, by_key):
    toy_cfg.update(model={'type': 'CompilableToy'}, val_cfg=None, val_dataloader=None)
    toy_cfg.update(val_evaluator=None)
    options = {'backend': 'eager', 'dynamic': False}
    if by_key:
        toy_cfg['compile'] = options
    else:
        toy_cfg['custom_hooks'].append({'type': 'evamm.CompileBlocksHook', **options})
    runner = make_runner(toy_cfg)
    runner.train()
    blocks = runner.model.blocks
    assert all(block._compiled_call_impl is not None for block in blocks)
    assert runner.model._compiled_call_impl is None


def test_nothing_is_compiled_without_the_key(toy_cfg, make_runner):
    for compile_cfg in (None, False):
        toy_cfg['compile'] = compile_cfg
        runner = make_runner(toy_cfg)
        runner._maybe_compile('train_step')
        assert all(m._compiled_call_impl is None for m in runner.model.modules())
