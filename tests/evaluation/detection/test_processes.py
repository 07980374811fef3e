"""Images shared by processes count like those of one, however the last batches are filled up."""

import json
import multiprocessing

import numpy as np
import pytest
import torch.distributed
from random_scenes import scenes

from evamm.evaluation.detection import CocoMetric, LVISMetric

KINDS = {'coco': CocoMetric, 'lvis': LVISMetric}


def evaluate(kind, folder, samples, meta, total):
    metric = KINDS[kind](str(folder / 'truth.json'), ['bbox', 'segm'])
    metric.dataset_meta = meta
    metric.process(None, samples)
    return metric.evaluate(total)


def run(rank, kind, folder, samples, meta):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    # As DefaultSampler deals them: in turn, and the first one again at the end.
    dealt = [*samples, samples[0]][rank::2]
    results = evaluate(kind, folder, dealt, meta, len(samples))
    (folder / f'{rank}.json').write_text(json.dumps(results))


@pytest.mark.parametrize('kind', KINDS)
def test_two_processes_give_the_numbers_of_one(tmp_path, kind):
    truth, samples = scenes(np.random.default_rng(1), images=15, classes=5, lvis=kind == 'lvis')
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    meta = {'classes': [entry['name'] for entry in truth['categories']]}
    expected = evaluate(kind, tmp_path, samples, meta, len(samples))
    assert expected[f'{kind}/bbox_{"mAP" if kind == "coco" else "AP"}'] > 0
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=run, args=(rank, kind, tmp_path, samples, meta)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in (0, 1):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert found == pytest.approx(expected, abs=1e-12)
