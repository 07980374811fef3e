"""EVA-02-L, Cascade Mask R-CNN on LVIS v1 at 1536 pixels.

Reproduces: `eva02_L_lvis_sys` of EVA-02/det/README.md.
Expected: box AP 60.05, mask AP 53.51 on LVIS v1 val.
Hardware: 16 GPUs of 80 GB (the number of the official run is not known; float16 there).
Command, on each of 2 machines of 8 GPUs: NNODES=2 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_large_p16_1536_16xb8_lvis.py 8
Total batch: 16 GPUs x 8 images x 1 accumulation = 128.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_eva_lvis.py',
    '../_base_/datasets/lvis_v1_instance_1536.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(
        arch='eva02-large',
        img_size=1536,
        window_size=32,
        window_blocks=[i for i in range(24) if i % 3 != 2],
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/'
                'pt/eva02_L_pt_in21k_p14to16.pt'
            ),
        ),
    ),
    neck=dict(in_channels=1024),
    # Soft-NMS in place of NMS, no limit per image; scores times the mean of the mask
    # probabilities above 0.5.
    test_cfg=dict(
        rcnn=dict(
            soft_nms=dict(method='linear', iou_threshold=0.6, class_wise=True),
            maskness_thr=0.5,
        )
    ),
)

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = dict(warmup_steps=1000, milestones=[32000, 36000])
train_cfg = dict(max_iters=40000, val_interval=2500)
default_hooks = dict(checkpoint=dict(interval=2500, save_best='lvis/bbox_AP'))
auto_scale_lr = dict(base_batch_size=128)
