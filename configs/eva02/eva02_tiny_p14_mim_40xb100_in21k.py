"""EVA-02-Ti, masked image modelling on ImageNet-21K.

Reproduces: the pre-training of `eva02_Ti_pt_in21k_p14`, EVA-02/asuka/README.md.
Expected: no figure is published.
Hardware: 40 GPUs (official run: 5 nodes x 8 GPUs x 100 images, float16 with loss scaling;
    bfloat16 here, which needs none. For theirs: optim_wrapper.dtype='float16').
Command, on each of 5 machines of 8 GPUs: NNODES=5 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva02/eva02_tiny_p14_mim_40xb100_in21k.py 8
Total batch: 40 GPUs x 100 images x 1 accumulation = 4000.
"""

_base_ = [
    '../_base_/models/eva_mim_eva_clip.py',
    '../_base_/datasets/mim_imagenet21k.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(backbone=dict(arch='eva02-tiny'))

train_dataloader = dict(batch_size=100)
val_dataloader = dict(batch_size=150)
test_dataloader = dict(batch_size=150)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=240)
auto_scale_lr = dict(base_batch_size=4000)
