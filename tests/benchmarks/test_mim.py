"""The comparison of pre-training steps compares equal work."""

import numpy as np
import pytest
import torch

from benchmarks import mim
from evamm.models.flops import count_macs

SMALL = dict(mim.teacher_arch(88, 2))


@pytest.fixture(scope='module')
def peers() -> tuple[mim.Evamm, mim.Plain]:
    torch.manual_seed(0)
    ours = mim.Evamm('tiny', 56, SMALL)
    plain = mim.Plain('tiny', 56, SMALL, ours)
    plain.train()
    plain.teacher.eval()
    return ours, plain


IMAGES = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
MASKS = np.zeros((2, 4, 4), bool)
MASKS[0, :2, :3] = MASKS[1, 3, 1:] = True


def test_loss_and_gradients_are_those_of_the_plain_algorithm(peers):
    assert mim.check_equal(*peers, IMAGES, MASKS) < 1e-4


@pytest.mark.parametrize('part', ['teacher_head', 'student', 'mask_token'])
def test_unequal_work_is_not_timed(peers, part):
    ours, plain = peers
    weights = {
        'teacher_head': plain.teacher_head.bias,
        'student': plain.student.blocks[3].mlp.fc2.bias,
        'mask_token': plain.mask_token,
    }[part]
    kept = weights.data.clone()
    weights.data += torch.randn_like(weights)  # a constant would be lost in the next norm
    try:
        with pytest.raises(RuntimeError, match='do not compute the same'):
            mim.check_equal(ours, plain, IMAGES, MASKS)
    finally:
        weights.data.copy_(kept)


def test_cached_step_has_the_live_loss_and_no_teacher(peers):
    ours, _ = peers
    mask = torch.from_numpy(MASKS.reshape(2, -1))
    targets = ours.model.teacher(IMAGES)[mask]
    calls = []
    handle = ours.model.teacher.register_forward_hook(lambda *args: calls.append(1))
    cached = ours.cached_loss(IMAGES, mim.samples_of(MASKS, targets))
    assert not calls
    live = ours.loss(IMAGES, mim.samples_of(MASKS))
    assert calls
    handle.remove()
    torch.testing.assert_close(cached, live, atol=1e-3, rtol=0)


def test_the_default_teacher_is_an_eighth_of_the_released_one():
    released = mim.teacher_arch(1408, 40)
    assert count_macs(released, 224, 14) == count_macs('eva-clip-giant', 224)
    share = count_macs(mim.teacher_arch(704, 20), 224, 14) / count_macs(released, 224, 14)
    assert 1 / 8 < share < 1 / 7.5


def test_prints_a_table(capsys):
    threads = torch.get_num_threads()
    try:
        mim.main('--models tiny --img-size 56 --teacher 88x2 --repeats 1 --batch 2'.split())
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in lines[4].strip('|').split('|')]
    assert cells[:2] == ['tiny@56', '2']
    teacher, student = (float(part) for part in cells[2].split(' + '))
    assert float(cells[8]) == pytest.approx(1 + teacher / student, abs=0.06)
    assert all(float(cells[index].split()[0]) > 0 for index in (3, 4, 5, 6, 7))
    assert lines[-1].startswith('A mask: ') and 'features of a crop' in lines[-1]
