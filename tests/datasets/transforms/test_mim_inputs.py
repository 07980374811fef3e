import numpy as np
import torch


def test_two_sizes_of_one_crop(build):
    image = np.random.RandomState(0).randint(0, 256, (60, 80, 3), np.uint8)
    settings = dict(crop_ratio_range=(0.2, 1.0), interpolation='bicubic')
    crop = build('evamm.TwoSizeRandomResizedCrop', scale=28, second_scale=(56, 42), **settings)
    np.random.seed(3)
    student, teacher = crop(dict(img=image))['img']
    for side, found in ((28, student), ((56, 42), teacher)):
        np.random.seed(3)
        alone = build('evamm.RandomResizedCrop', scale=side, **settings)
        assert np.array_equal(found, alone(dict(img=image))['img'])
    same = build('evamm.TwoSizeRandomResizedCrop', scale=28, second_scale=28, **settings)
    np.random.seed(3)
    assert np.array_equal(same(dict(img=image))['img'], student)


def test_packing_leaves_arrays_as_they_are(build):
    image = np.random.RandomState(0).randint(0, 256, (4, 6, 3), np.uint8)
    mask, target = np.eye(2, dtype=bool), np.ones((2, 5), np.float16)
    pack = build('evamm.PackMIMInputs')
    packed = pack(dict(img=image, mask=mask, target=target, sample_idx=7))
    sample = packed['data_samples']
    assert torch.equal(packed['inputs'], torch.from_numpy(image).permute(2, 0, 1))
    assert sample.mask is mask and sample.target is target and sample.sample_idx == 7
    pair = pack(dict(img=[image, image[:2]], mask=mask))['inputs']
    assert [tuple(part.shape) for part in pair] == [(3, 4, 6), (3, 2, 6)]


def test_a_seeded_mask_belongs_to_its_image(build):
    """Validation of MAE: random masks that are the same every time."""
    masking = build('evamm.RandomMasking', input_size=8, mask_ratio=0.75, seed=1)
    masks = [masking(dict(sample_idx=index))['mask'] for index in (0, 1, 0)]
    assert np.array_equal(masks[0], masks[2]) and not np.array_equal(masks[0], masks[1])
    assert all(mask.sum() == 48 for mask in masks)
    other = build('evamm.RandomMasking', input_size=8, mask_ratio=0.75, seed=2)
    assert not np.array_equal(other(dict(sample_idx=0))['mask'], masks[0])
