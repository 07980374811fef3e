import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evamm.evaluation import RealAccuracy

REAL = [[], [1], [2, 4], [0], [3, 1], [4], []]


@pytest.fixture
def real_json(tmp_path):
    path = tmp_path / 'real.json'
    path.write_text(json.dumps(REAL))
    return str(path)


def sample(number, best, second):
    scores = torch.zeros(5)
    scores[best], scores[second] = 0.6, 0.3
    return dict(
        img_path=f'/data/imagenet/val/n01440764/ILSVRC2012_val_{number:08d}.JPEG',
        gt_label=torch.tensor([0]),
        pred_score=scores,
    )


def samples():
    """Image 1 has no label; 2 right; 3 right by its second label; 4, 6 second best; 5 wrong."""
    return [
        sample(4, best=1, second=0),
        sample(1, best=1, second=0),
        sample(6, best=0, second=4),
        sample(3, best=4, second=0),
        sample(5, best=0, second=2),
        sample(2, best=1, second=0),
        sample(7, best=0, second=1),
    ]


EXPECTED = {'real/top1': pytest.approx(40.0), 'real/top2': pytest.approx(80.0)}


def test_any_label_counts_and_unlabelled_images_are_skipped(real_json):
    metric = RealAccuracy(real_json, topk=(1, 2))
    metric.process(None, samples())
    assert metric.evaluate(len(samples())) == EXPECTED


def test_order_does_not_matter(real_json):
    metric = RealAccuracy(real_json, topk=(1, 2))
    for one in reversed(samples()):
        metric.process(None, [one])
    assert metric.evaluate(len(samples())) == EXPECTED


WORKER = """
import sys, torch, torch.distributed as dist
from mmengine.dataset import DefaultSampler
sys.path.insert(0, sys.argv[4])
from test_real_accuracy import samples
from evamm.evaluation import RealAccuracy

rank, real_json, store = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
data = samples()
metric = RealAccuracy(real_json, topk=(1, 2))
for index in DefaultSampler(data, shuffle=False):
    metric.process(None, [data[index]])
result = metric.evaluate(len(data))
print(rank, result['real/top1'], result['real/top2'])
dist.destroy_process_group()
"""


def test_two_processes_give_the_same_figure(real_json, tmp_path):
    """Seven samples on two processes: the sampler repeats one, and skipped ones lie in both."""
    store = tmp_path / 'store'
    here = Path(__file__)
    command = [sys.executable, '-c', WORKER]
    arguments = [real_json, str(store), str(here.parent)]
    environment = {**os.environ, 'PYTHONPATH': str(here.parents[3]), 'OMP_NUM_THREADS': '1'}
    workers = [
        subprocess.Popen(
            [*command, str(rank), *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    for rank, (out, err) in enumerate(outputs):
        assert workers[rank].returncode == 0, err
        assert out.split()[-3] == str(rank)
        assert [float(value) for value in out.split()[-2:]] == pytest.approx([40.0, 80.0])


def test_clear_errors(tmp_path, real_json):
    with pytest.raises(FileNotFoundError, match='reassessed-imagenet'):
        RealAccuracy(str(tmp_path / 'none.json'))
    (tmp_path / 'bad.json').write_text('{"a": 1}')
    with pytest.raises(ValueError, match='must be a list of lists'):
        RealAccuracy(str(tmp_path / 'bad.json'))
    metric = RealAccuracy(real_json, topk=(1,))
    with pytest.raises(ValueError, match=r'ILSVRC2012_val_00000099.JPEG has no entry'):
        metric.process(None, [sample(99, 0, 1)])
    with pytest.raises(ValueError, match='no `img_path`'):
        metric.process(None, [dict(pred_score=torch.rand(5))])
    metric.process(None, [sample(1, 0, 1)])
    with pytest.raises(ValueError, match='none of the 1 samples counts'):
        metric.evaluate(1)
