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


def test_a_pair_keeps_its_text_and_its_tokens(build):
    packed = build('evamm.PackPairInputs', algorithm_keys=('weight',))(
        {
            'img': np.zeros((4, 5, 3), np.uint8),
            'img_path': 'a.jpg',
            'image_id': 3,
            'text': ['one', 'two'],
            'text_tokens': torch.ones(2, 77, dtype=torch.long),
            'weight': 0.5,
            'url': 'not packed',
        }
    )
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 4, 5)
    assert (sample.text, sample.img_path, sample.image_id) == (['one', 'two'], 'a.jpg', 3)
    assert sample.text_tokens.shape == (2, 77) and sample.weight == 0.5
    assert 'url' not in sample
