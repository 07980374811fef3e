"""EVA-01-g, masked image modelling on merged-30M.

Reproduces: the pre-training of `eva_psz14`, EVA-01/eva/README.md.
Expected: mean cosine 0.777 on the validation images (official log), 0.749 in training.
Hardware: 128 GPUs (official run: 16 nodes x 8 GPUs x 32 images, float16 with loss scaling;
    bfloat16 here, which needs none. For theirs: optim_wrapper.dtype='float16').
Command, on each of 16 machines of 8 GPUs: NNODES=16 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva/eva_giant_p14_mim_128xb32_merged30m.py 8
Total batch: 128 GPUs x 32 images x 1 accumulation = 4096.
"""

_base_ = [
    '../_base_/models/eva_mim_openai_clip.py',
    '../_base_/datasets/mim_merged30m.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(backbone=dict(arch='eva-giant', drop_path_rate=0.1))

train_dataloader = dict(batch_size=32)
val_dataloader = dict(batch_size=48)
test_dataloader = dict(batch_size=48)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=4096)
