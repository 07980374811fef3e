"""EVA-02-L, Cascade Mask R-CNN on LVIS v1 at 1024 pixels.

Reproduces: `eva02_L_lvis_bsl` of EVA-02/det/README.md.
Expected: box AP 55.29, mask AP 48.60 on LVIS v1 val (NMS).
Hardware: 16 GPUs of 80 GB (the number of the official run is not known; float16 there).
Command, on each of 2 machines of 8 GPUs: NNODES=2 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_large_p16_1024_16xb8_lvis.py 8
Total batch: 16 GPUs x 8 images x 1 accumulation = 128.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_eva_lvis.py',
    '../_base_/datasets/lvis_v1_instance_1024.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1024),
    backbone=dict(
        arch='eva02-large',
        img_size=1024,
        window_size=16,
        window_blocks=[i for i in range(24) if i % 6 != 5],
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/'
                'pt/eva02_L_pt_in21k_p14to16.pt'
            ),
        ),
    ),
    neck=dict(in_channels=1024),
)

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = dict(warmup_steps=1000, milestones=[32000, 36000])
train_cfg = dict(max_iters=40000, val_interval=2500)
default_hooks = dict(checkpoint=dict(interval=2500, save_best='lvis/bbox_AP'))
auto_scale_lr = dict(base_batch_size=128)
