"""EVA-02-Ti, masked image modelling on ImageNet-21K from cached teacher features.

The recipe of eva02_tiny_p14_mim_40xb100_in21k.py, with the features of the teacher read from disk.
Reproduces: that recipe, except that each image has 4 fixed crops in all epochs, not a new one in
    each. What this costs in accuracy has not been measured.
Expected: no figure is published.
Disk: 14.2 million images x 4 crops x 256 patches x 1024 numbers: 14.9 TB as int8, 29.8 TB as
    float16. With num_views=1: 3.7 and 7.4 TB. Half the disk takes every second image.
Speed: a step with the teacher is 272.6 G multiply-accumulates per image, one without it 5.2: 53
    times less. Writing the cache is the teacher's work of 4 epochs: it pays from the fifth of 240.
Hardware: as the recipe; less will do, because the loader is the limit. A crop is 0.11 MB to read.
Command: python tools/cache_teacher.py THIS_CONFIG --out data/imagenet21k_features --dtype int8
    and on each of 5 machines of 8 GPUs: NNODES=5 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva02/eva02_tiny_p14_mim_40xb100_in21k_cached.py 8
Total batch: 40 GPUs x 100 images x 1 accumulation = 4000.
"""

_base_ = './eva02_tiny_p14_mim_40xb100_in21k.py'

# What tools/cache_teacher.py computes; training has no teacher.
teacher = _base_.model.teacher
model = dict(head=dict(out_channels=1024), teacher=None)

_load, _flip, _crop, _mask, _pack = _base_.train_pipeline
cached_pipeline = [
    _load,
    dict(type='evamm.SeededCrops', num_views=4, seed=0, transforms=[_flip, _crop]),
    _mask,
    dict(type='evamm.LoadTeacherFeatures', cache='data/imagenet21k_features'),
    _pack,
]
train_dataloader = dict(dataset=dict(pipeline=cached_pipeline))

# Without a teacher there is nothing to compare with: the config of the recipe tests checkpoints.
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
default_hooks = dict(checkpoint=dict(save_best=None, rule=None))
