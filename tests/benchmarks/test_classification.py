"""The speed comparison compares equal work and says so in numbers."""

import pytest
import torch

from benchmarks import classification
from benchmarks.peers import PEERS, Work
from benchmarks.timing import Ratio, interleave, peak_memory
from evamm.models.layers import linear


def test_peers_compute_the_same() -> None:
    work = Work('tiny', 98, num_classes=7)
    weights = classification.random_weights(work)
    models = {name: build(work, weights) for name, build in PEERS.items()}
    image = torch.randn(2, 3, 98, 98, generator=torch.Generator().manual_seed(0))
    errors = classification.check_equal(models, image, torch.tensor([1, 2]))
    assert set(errors) == {'evamm', 'timm', 'mmpretrain'}
    assert max(errors.values()) < 1e-5


def test_unequal_work_is_not_timed() -> None:
    work = Work('tiny', 56, num_classes=7)
    weights = classification.random_weights(work)
    models = {name: PEERS[name](work, weights) for name in ('evamm', 'timm')}
    with torch.no_grad():
        models['timm'].blocks[3].mlp.fc1.bias[0] += 1
    with pytest.raises(RuntimeError, match='timm does not compute'):
        classification.check_equal(models, torch.randn(2, 3, 56, 56), torch.tensor([1, 2]))


def test_training_step_trains_every_parameter() -> None:
    work = Work('tiny', 56, num_classes=7)
    model = PEERS['evamm'](work, classification.random_weights(work))
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    jobs = classification.jobs_for(
        'train', {'evamm': model}, torch.randn(2, 3, 56, 56), torch.tensor([1, 2]), torch.float32
    )
    jobs['evamm']()
    unchanged = [n for n, param in model.named_parameters() if torch.equal(param, before[n])]
    assert not unchanged
    assert all(param.grad is None for param in model.parameters())


def test_jobs_take_turns() -> None:
    calls = []
    jobs = {name: (lambda name=name: calls.append(name)) for name in 'abc'}
    seconds = interleave(jobs, repeats=3, device='cpu')
    assert ''.join(calls) == 'abc' + 'abc' + 'bca' + 'cab'  # warm-up, then rotating rounds
    assert {name: len(values) for name, values in seconds.items()} == dict(a=3, b=3, c=3)


def test_memory_is_the_most_that_is_held_at_once() -> None:
    def job() -> None:
        first = torch.empty(1000)
        del first
        second, third = torch.empty(2000), torch.empty(3000)
        del second, third

    assert 20000 <= peak_memory(job, 'cpu') < 24000


def test_products_are_those_of_a_block() -> None:
    work = Work('tiny', 56, num_classes=7)
    model = PEERS['evamm'](work, classification.random_weights(work))
    products = classification.products_of(model, work, 3, torch.float32)
    # qkv, proj, w12 and w3 of 17 tokens and 3 images
    assert products.flops == 2 * 3 * 17 * (192 * 192 * 4 + 192 * 512 * 3)
    assert 12 * products.flops < products.flops_of_forward < 14 * products.flops
    products.job()


def test_ratio_is_taken_round_by_round() -> None:
    # A round during which the machine was busy slows both down and must not count.
    ratio = Ratio.of(theirs=[2.0, 20.0, 3.0], ours=[1.0, 10.0, 1.0])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.5)
    assert str(ratio) == '2.00 (2.00-2.50)'


def test_prints_a_table(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, '_USE_ONEDNN', True)
    threads = torch.get_num_threads()
    try:
        classification.main(
            '--models tiny@56 --peers timm --repeats 1 --batch 1 --modes forward memory '
            '--default-kernels'.split()
        )
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert 'timm / evamm' in lines[2]
    cells = [cell.strip() for cell in lines[4].strip('|').split('|')]
    assert cells[:3] == ['tiny@56', 'forward', '1']
    assert float(cells[4].split()[0]) > 0
    assert cells[5].endswith(' %') and float(cells[5].split()[0]) > 0
    assert ' MB | ' in lines[5]
    assert not linear._USE_ONEDNN


@pytest.mark.parametrize('text', ['tiny', 'tiny@', 'giant@224', '224'])
def test_model_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match='tiny@224'):
        Work.parse(text)
