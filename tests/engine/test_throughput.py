import json
import math
import time

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from torch import nn

from evamm.engine import AmpOptimWrapper
from evamm.engine.flop_meter import matmul_rate
from evamm.engine.hooks import throughput
from evamm.engine.optimizers.grad_norm import GradNormRecorder


@pytest.fixture
def cfg(toy_cfg):
    toy_cfg['default_hooks'].update(
        runtime_info={'type': 'evamm.RuntimeInfoHook'},
        throughput={'type': 'evamm.ThroughputHook', 'matmul_tflops': 1e-3},
    )
    return toy_cfg


class Probe(Hook):
    """Reads the message hub right when LoggerHook does."""

    priority = 'BELOW_NORMAL'

    def __init__(self):
        self.norms = []

    def before_train(self, runner):
        optimizer = runner.optim_wrapper.optimizer

        def norm(*_):
            grads = [p.grad for group in optimizer.param_groups for p in group['params']]
            self.norms.append(math.sqrt(sum(float((g**2).sum()) for g in grads)))

        optimizer.register_step_pre_hook(norm)


def test_the_log_line_shows_speed_wait_mfu_and_gradient_norm(cfg, make_runner, run_dir):
    runner = make_runner(cfg)
    probe = Probe()
    runner.register_hook(probe)
    runner.train()
    (file,) = run_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines() if 'lr' in line]
    assert len(lines) == 4
    for line in lines:
        assert line['images_per_second'] > 0 and 0 < line['data_wait'] < 1
        flops = 3 * 2 * (6 * 8 + 8 * 2)
        assert line['mfu'] == pytest.approx(flops * line['images_per_second'] / 1e9, rel=1e-4)
        assert 'hfu' not in line
    assert len(probe.norms) == 12
    assert lines[-1]['grad_norm'] == pytest.approx(sum(probe.norms[-10:]) / 10, rel=1e-4)
    history = runner.message_hub.get_scalar('train/grad_norm').data[0]
    assert history.tolist() == pytest.approx(probe.norms, rel=1e-5)


def test_the_norm_is_that_before_clipping(cfg, make_runner):
    cfg['param_scheduler']['warmup'] = 10  # rates so small that clipping changes no weight visibly
    cfg['optim_wrapper']['optimizer']['lr'] = 1e-12
    free = make_runner(cfg)
    free.train()
    cfg['optim_wrapper']['clip_grad'] = {'max_norm': 1e-3}
    clipped = make_runner(cfg)
    clipped.train()
    norms = [r.message_hub.get_scalar('train/grad_norm').data[0] for r in (free, clipped)]
    assert norms[0].tolist() == pytest.approx(norms[1].tolist(), rel=1e-4)
    assert len(norms[0]) == 12 and norms[0].min() > 0.1


def test_clipping_waits_for_the_device_only_when_read(monkeypatch):
    param = nn.Parameter(torch.tensor([3.0, 4.0]))
    wrapper = AmpOptimWrapper(torch.optim.SGD([param], lr=1.0), clip_grad={'max_norm': 1.0})
    recorder = GradNormRecorder(wrapper)
    reads = []
    for name in ('__float__', 'item', 'tolist', '__bool__'):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, read=method: reads.append(read) or read(self)
        )
    for _ in range(2):
        param.grad = torch.tensor([3.0, 4.0])
        wrapper.step()
    assert not reads
    assert torch.allclose(param.detach(), torch.tensor([3.0, 4.0]) - 2 * torch.tensor([0.6, 0.8]))
    assert recorder.take() == [('grad_norm', 5.0), ('grad_norm', 5.0)]
    assert len(reads) == 1


def test_scaled_gradients_of_a_fused_optimizer_are_unscaled():
    """GradScaler leaves the division to fused optimizers and puts the scale on them."""
    param = nn.Parameter(torch.zeros(2))
    wrapper = AmpOptimWrapper(torch.optim.AdamW([param], fused=True))
    recorder = GradNormRecorder(wrapper)
    param.grad = torch.tensor([3.0, 4.0]) * 1024
    wrapper.optimizer.grad_scale = torch.tensor(1024.0)
    wrapper.step()
    assert recorder.take() == [('grad_norm', 5.0)]


@DATASETS.register_module()
class SlowDataset:
    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.003)
        return {'inputs': torch.zeros(6), 'labels': torch.tensor(0)}


class SlowEnd(Hook):
    """Stands for saving, which is neither training nor waiting for data."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(0.03)


def test_waiting_is_told_apart_from_work_and_saving(cfg, make_runner):
    cfg['train_dataloader']['dataset'] = {'type': 'SlowDataset'}
    runner = make_runner(cfg)
    runner.register_hook(SlowEnd())
    runner.train()
    assert runner.message_hub.get_scalar('train/data_wait').current() > 0.5
    # 4 images in 12 ms and a bit; with the 30 ms of "saving" it would be below 95.
    assert 100 < runner.message_hub.get_scalar('train/images_per_second').current() < 333


def test_losses_are_read_when_logged_and_complete_in_checkpoints(cfg, make_runner, run_dir):
    cfg['default_hooks']['logger']['interval'] = 4
    lengths = []

    class Watch(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            scalars = runner.message_hub.log_scalars
            lengths.append(len(scalars['train/loss'].data[0]) if 'train/loss' in scalars else 0)

    runner = make_runner(cfg)
    runner.register_hook(Watch())
    runner.train()
    assert lengths == [0, 0, 0, 4, 4, 4, 6, 6, 6, 10, 10, 10]
    checkpoint = torch.load(run_dir / 'epoch_1.pth', weights_only=True)
    history = checkpoint['message_hub']['log_scalars']
    assert len(history['train/loss']['log']) == len(history['train/grad_norm']['log']) == 6


def test_the_losses_are_those_of_mmengines_hook(cfg, make_runner):
    ours = make_runner(cfg)
    ours.train()
    cfg['default_hooks']['runtime_info'] = {'type': 'RuntimeInfoHook'}
    theirs = make_runner(cfg)
    theirs.train()
    losses = [r.message_hub.get_scalar('train/loss').data[0].tolist() for r in (ours, theirs)]
    assert losses[0] == losses[1]


def test_tensorboard_gets_the_same_values(cfg, make_runner, run_dir):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backends = [{'type': 'LocalVisBackend'}, {'type': 'TensorboardVisBackend'}]
    cfg['visualizer'] = {'type': 'Visualizer', 'vis_backends': backends}
    runner = make_runner(cfg)
    runner.train()
    runner.visualizer.close()
    (folder,) = run_dir.glob('*/vis_data')
    events = EventAccumulator(str(folder)).Reload()
    text = (folder / 'scalars.json').read_text()
    lines = [line for line in map(json.loads, text.splitlines()) if 'lr' in line]
    for name in ('loss', 'lr', 'images_per_second', 'data_wait', 'mfu', 'grad_norm'):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line['step'], pytest.approx(line[name], rel=1e-6)) for line in lines]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ('batch', 'size'),
    [
        ({'inputs': torch.zeros(4, 3, 2, 2)}, 4),
        ({'inputs': [torch.zeros(3, 2, 2)] * 5}, 5),
        ({'inputs': [torch.zeros(6, 3, 2, 2)] * 2}, 6),
        ([torch.zeros(3, 2, 2)] * 3, 3),
    ],
)
def test_images_are_counted_in_every_kind_of_batch(batch, size):
    assert throughput._batch_size(batch) == size


def test_the_measured_rate_is_plausible_and_draws_no_random_number():
    state = torch.get_rng_state()
    rate = matmul_rate(torch.device('cpu'))
    assert 1e8 < rate < 1e14
    assert torch.equal(state, torch.get_rng_state())


def test_mfu_is_left_out_when_a_compiled_part_cannot_say(cfg, make_runner):
    runner = make_runner(cfg)
    runner.model.net[0].compile(backend='eager')
    runner.train()
    assert 'train/mfu' not in runner.message_hub.log_scalars
    assert 'train/images_per_second' in runner.message_hub.log_scalars


def test_the_model_can_be_told(cfg, make_runner):
    cfg['default_hooks']['throughput']['flops_per_image'] = 5e3
    runner = make_runner(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    speed = scalars['train/images_per_second'].current()
    assert scalars['train/mfu'].current() == pytest.approx(speed * 5e3 / 1e9)
