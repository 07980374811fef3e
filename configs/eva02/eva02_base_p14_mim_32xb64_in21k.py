"""EVA-02-B, masked image modelling on ImageNet-21K.

Reproduces: the pre-training of `eva02_B_pt_in21k_p14`, EVA-02/asuka/README.md.
Expected: no figure is published.
Hardware: 32 GPUs (official run: 4 nodes x 8 GPUs x 64 images, float16 with loss scaling;
    bfloat16 here, which needs none. For theirs: optim_wrapper.dtype='float16').
Command, on each of 4 machines of 8 GPUs: NNODES=4 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva02/eva02_base_p14_mim_32xb64_in21k.py 8
Total batch: 32 GPUs x 64 images x 1 accumulation = 2048.
"""

_base_ = [
    '../_base_/models/eva_mim_eva_clip.py',
    '../_base_/datasets/mim_imagenet21k.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(backbone=dict(arch='eva02-base'))

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=96)
test_dataloader = dict(batch_size=96)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=2048)
