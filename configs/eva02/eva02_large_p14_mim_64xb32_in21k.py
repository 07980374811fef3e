"""EVA-02-L, masked image modelling on ImageNet-21K.

Reproduces: the pre-training of `eva02_L_pt_in21k_p14`, EVA-02/asuka/README.md.
Expected: no figure is published.
Hardware: 64 GPUs (official run: 8 nodes x 8 GPUs x 32 images, float16 with loss scaling;
    bfloat16 here, which needs none. For theirs: optim_wrapper.dtype='float16').
Command, on each of 8 machines of 8 GPUs: NNODES=8 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva02/eva02_large_p14_mim_64xb32_in21k.py 8
Total batch: 64 GPUs x 32 images x 1 accumulation = 2048.
"""

_base_ = [
    '../_base_/models/eva_mim_eva_clip.py',
    '../_base_/datasets/mim_imagenet21k.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(backbone=dict(arch='eva02-large', drop_path_rate=0.1))

train_dataloader = dict(batch_size=32)
val_dataloader = dict(batch_size=48)
test_dataloader = dict(batch_size=48)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=2048)
