import numpy as np
import pytest
import torch


@pytest.mark.parametrize(
    'image',
    [
        np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3),
        np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)[:, ::-1],
        np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)[1:4, 2:3],
        np.arange(5 * 7 * 3, dtype=np.float32).reshape(5, 7, 3),
        np.arange(5 * 7 * 4, dtype=np.uint8).reshape(5, 7, 4),
        np.arange(5 * 7, dtype=np.uint8).reshape(5, 7),
        np.arange(2 * 3 * 5 * 7, dtype=np.uint8).reshape(2, 3, 5, 7),
    ],
    ids=['image', 'mirrored', 'cut out', 'float', 'four channels', 'grey', 'clip'],
)
def test_packs_as_mmpretrain_does(build, image):
    sample = dict(img=image, gt_label=3, img_path='a.jpg', ori_shape=(9, 9), flip=True)
    wanted = build('PackInputs')(sample.copy())
    ours = build('evamm.PackInputs')(sample.copy())
    assert ours['inputs'].dtype == wanted['inputs'].dtype
    assert ours['inputs'].is_contiguous()
    assert torch.equal(ours['inputs'], wanted['inputs'])
    assert str(ours['data_samples'].to_dict()) == str(wanted['data_samples'].to_dict())


def test_the_image_can_change_afterwards(build):
    """The tensor has memory of its own."""
    image = np.zeros((4, 4, 3), np.uint8)
    inputs = build('evamm.PackInputs')(dict(img=image))['inputs']
    image += 1
    assert not inputs.any()
