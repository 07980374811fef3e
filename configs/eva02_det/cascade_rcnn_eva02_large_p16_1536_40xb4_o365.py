"""EVA-02-L, Cascade R-CNN on Objects365 at 1536 pixels.

Reproduces: `eva02_L_in21k_to_o365` of EVA-02/det/README.md.
Expected: no figure is published; the stage before COCO or LVIS.
Hardware: 40 GPUs of 80 GB (the number of the official run is not known; float16 there).
Command, on each of 5 machines of 8 GPUs: NNODES=5 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva02_det/cascade_rcnn_eva02_large_p16_1536_40xb4_o365.py 8
Total batch: 40 GPUs x 4 images x 1 accumulation = 160.
"""

_base_ = [
    '../_base_/models/cascade_rcnn_eva_objects365.py',
    '../_base_/datasets/objects365_1536.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(
        arch='eva02-large',
        img_size=1536,
        window_size=16,
        window_blocks=[i for i in range(24) if i % 3 != 2],
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

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=6e-5), paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = dict(warmup_steps=5000, milestones=[320000, 360000])
train_cfg = dict(max_iters=400000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
auto_scale_lr = dict(base_batch_size=160)
