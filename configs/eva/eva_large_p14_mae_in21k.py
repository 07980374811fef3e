"""EVA-L, MAE-style pre-training on ImageNet-21K.

Reproduces: the pre-training of `eva_l_psz14`, EVA-01/logs/pt. No command is published: rate, betas,
    weight decay and warm-up are those of the log, the batch follows from it (3,466 steps for the
    14.2 million images of an epoch); eps and clipping are the defaults of the official script.
Expected: mean cosine 0.751 on the validation images (official log), 0.746 in training.
Hardware: 64 GPUs (bfloat16; the official run: float16 with loss scaling, GPUs not published).
Command, on each of 8 machines of 8 GPUs: NNODES=8 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva/eva_large_p14_mae_in21k.py 8
Total batch: 64 GPUs x 64 images x 1 accumulation = 4096.
"""

_base_ = [
    '../_base_/models/eva_mae_mim.py',
    '../_base_/datasets/mim_imagenet21k_mae.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=96)
test_dataloader = dict(batch_size=96)
optim_wrapper = dict(optimizer=dict(lr=2.4e-3, betas=(0.9, 0.95)))
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=4096)
