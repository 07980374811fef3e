"""EVA-02-L (Objects365), Cascade Mask R-CNN on LVIS v1 at 1536 pixels.

Reproduces: `eva02_L_lvis_sys_o365` of EVA-02/det/README.md.
Expected: box AP 65.22, mask AP 57.32 on LVIS v1 val.
Hardware: 8 GPUs of 80 GB (the number of the official run is not known; float16 there).
Command: bash tools/dist_train.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_large_p16_o365_1536_8xb8_lvis.py 8
Total batch: 8 GPUs x 8 images x 1 accumulation = 64.
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
        window_size=16,
        window_blocks=[i for i in range(24) if i % 3 != 2],
        drop_path_rate=0.3,
        with_cp=True,
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

load_from = (
    'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/det/eva02_L_in21k_to_o365.pth'
)

val_evaluator = dict(max_dets=1000)
test_evaluator = dict(max_dets=1000)

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler = dict(warmup_steps=700)
train_cfg = dict(max_iters=70000)
# Only the average is evaluated; a checkpoint holds both.
custom_hooks = [dict(type='evamm.EMAHook', momentum=1e-4)]
default_hooks = dict(checkpoint=dict(save_best='lvis/bbox_AP'))
auto_scale_lr = dict(base_batch_size=64)
