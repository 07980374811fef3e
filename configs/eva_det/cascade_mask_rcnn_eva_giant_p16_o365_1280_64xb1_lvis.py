"""EVA-01-g (Objects365), Cascade Mask R-CNN on LVIS v1 at 1280 pixels.

Reproduces: `eva_lvis` of EVA-01/det/README.md.
Expected: the published figures are those at 1536 pixels, of the `_1536_` config.
Hardware: 64 GPUs of 40 GB or more (official run: 8 nodes x 8 GPUs x 1 image).
Command, on each of 8 machines of 8 GPUs: NNODES=8 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_lvis.py 8
Total batch: 64 GPUs x 1 image x 1 accumulation = 64.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_eva_lvis.py',
    '../_base_/datasets/lvis_v1_instance_1280.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1280),
    backbone=dict(
        arch='eva-giant',
        img_size=1280,
        window_size=16,
        window_blocks=[i for i in range(40) if i % 4 != 3],
        relative_position=True,
        drop_path_rate=0.6,
        freeze_patch_embed=True,
        with_cp=True,
    ),
    neck=dict(in_channels=1408),
)

load_from = 'https://huggingface.co/BAAI/EVA/resolve/main/eva_o365.pth'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = dict(warmup_steps=250, milestones=[70000, 75000])
train_cfg = dict(max_iters=75001)
default_hooks = dict(checkpoint=dict(save_best='lvis/bbox_AP'))
auto_scale_lr = dict(base_batch_size=64)
