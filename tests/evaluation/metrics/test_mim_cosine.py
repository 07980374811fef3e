import pytest

from evamm.evaluation import MIMCosine


def test_mean_over_patches():
    metric = MIMCosine()
    metric.process({}, [dict(mim_cosine=0.5, num_masked=1), dict(mim_cosine=0.1, num_masked=3)])
    metric.process({}, [dict(mim_cosine=0.0, num_masked=0)])
    assert metric.evaluate(3) == {'mim/cosine': pytest.approx(0.2)}


def test_needs_a_mask():
    metric = MIMCosine()
    metric.process({}, [dict(mim_cosine=0.0, num_masked=0)])
    with pytest.raises(ValueError, match='EvenMasking'):
        metric.evaluate(1)
