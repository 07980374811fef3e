"""ImageNet-1K loaders and the augmentation policy; `imagenet_<size>.py` adds the pipelines.

Folders: data/imagenet/{train,val}/<class>/<image>, see docs/en/data_preparation.md.
"""

# timm's rand-m9-mstd0.5-inc1: two of fifteen operations, strength 9 of 10 with deviation 0.5.
# Images are BGR here, so the fill is CLIP's mean colour in BGR.
rand_augment = dict(
    type='evamm.RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[104, 117, 123], interpolation='bicubic'),
)

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    pin_memory=True,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='train'),
)

val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    pin_memory=True,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val'),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
