import inspect
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS, OPTIM_WRAPPERS, RUNNERS, STRATEGIES
from torch import nn
from torch.distributed.tensor import DTensor

import evamm.registry  # noqa: F401
from evamm.engine import FSDP2
from evamm.engine.strategies.sharded_checkpoint import put_in, read_sharded_state, take_out
from evamm.engine.strategies.sharding import copy_parameters, restore_gradients

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'en' / 'scaling.md'


def test_the_wrapper_is_found_by_name_from_a_config():
    assert MODEL_WRAPPERS.get('evamm.FSDP2') is FSDP2


def test_the_deepspeed_config_of_the_docs_names_what_exists():
    pytest.importorskip('mmengine._strategy')
    (block,) = [
        b for b in re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S) if 'Deep' in b
    ]
    cfg = {}
    exec(block, cfg)
    assert RUNNERS.get(cfg['runner_type']) is not None
    strategy = STRATEGIES.get(cfg['strategy'].pop('type'))
    inspect.signature(strategy).bind(**cfg['strategy'])
    assert OPTIM_WRAPPERS.get(cfg['optim_wrapper']['type']) is not None


def test_the_options_of_the_docs_exist():
    parameters = inspect.signature(FSDP2).parameters
    table = PAGE.read_text().split('| option of `evamm.FSDP2`')[1].split('\n\n')[0]
    options = re.findall(r'^\| `(\w+)=', table, re.M)
    assert len(options) == 4 and set(options) <= set(parameters)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer('table', torch.ones(2), persistent=False)
        self.register_parameter('nothing', None)


def test_a_copy_of_the_parameters_has_the_same_names_order_and_ties():
    model = Tied()
    copy = copy_parameters(model)
    assert list(copy.state_dict()) == list(model.state_dict())
    assert [n for n, _ in copy.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in copy.named_buffers()] == [n for n, _ in model.named_buffers()]
    with torch.no_grad():
        model.first.weight.zero_()
    assert copy.first.weight.abs().sum() > 0  # no memory is shared
    assert copy.first.weight is copy.second.weight
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.first.weight, model.first.weight)


def test_gradients_of_several_processes_become_their_mean():
    model = nn.Linear(2, 1, bias=False)
    restore_gradients(
        model, [{'weight': torch.tensor([[1.0, 2.0]])}, {'weight': torch.tensor([[3.0, 6.0]])}]
    )
    assert model.weight.grad.tolist() == [[2.0, 4.0]]


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_sharded_tensors_are_taken_out_and_put_back(one_process):
    mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (1,))
    tensor = torch.distributed.tensor.distribute_tensor(torch.ones(2), mesh)
    tree = {'a': [tensor, 1], 3: {'b': (tensor, 'text')}, 'c': torch.zeros(1)}
    marked, tensors = take_out(tree)
    assert list(tensors) == ['a/0', '3/b/0']
    assert isinstance(marked['a'][0], str) and marked['a'][1] == 1 and marked[3]['b'][1] == 'text'
    back = put_in(marked, {key: value.full_tensor() for key, value in tensors.items()})
    assert torch.equal(back['a'][0], torch.ones(2)) and torch.equal(back[3]['b'][0], torch.ones(2))
    assert isinstance(tensor, DTensor) and back['c'] is tree['c']


def test_a_missing_shard_is_named(tmp_path):
    from evamm.checkpoints import CheckpointError, write_checkpoint

    entry = ('shard-00001.safetensors', 10, 'hash')
    write_checkpoint({'sharded_tensors': [entry]}, tmp_path / 'state.pth')
    with pytest.raises(CheckpointError, match='shard-00001.safetensors is missing'):
        read_sharded_state(tmp_path)
    (tmp_path / entry[0]).write_bytes(b'0' * 9)
    with pytest.raises(CheckpointError, match='size is not the one'):
        read_sharded_state(tmp_path)
    (tmp_path / entry[0]).write_bytes(b'0' * 10)
    with pytest.raises(CheckpointError, match='hash is not the one'):
        read_sharded_state(tmp_path)
