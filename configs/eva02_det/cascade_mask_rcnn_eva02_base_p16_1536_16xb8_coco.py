"""EVA-02-B, Cascade Mask R-CNN on COCO at 1536 pixels.

Reproduces: `eva02_B_coco_sys` of EVA-02/det/README.md.
Expected: box AP 58.93 on val2017; mask AP 50.69 with the `_seg` config.
Hardware: 16 GPUs of 80 GB (the number of the official run is not known; float16 there).
Command, on each of 2 machines of 8 GPUs: NNODES=2 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_base_p16_1536_16xb8_coco.py 8
Total batch: 16 GPUs x 8 images x 1 accumulation = 128.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_eva.py',
    '../_base_/datasets/coco_instance_1536.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(
        arch='eva02-base',
        img_size=1536,
        window_size=32,
        window_blocks=[i for i in range(12) if i % 2 != 1],
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/'
                'pt/eva02_B_pt_in21k_p14to16.pt'
            ),
        ),
    ),
    neck=dict(in_channels=768),
    # Soft-NMS in place of NMS, no threshold of the scores, no limit per image.
    test_cfg=dict(
        rcnn=dict(
            soft_nms=dict(method='linear', iou_threshold=0.6, class_wise=True, score_thr=0.0),
        )
    ),
)

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.7))
param_scheduler = dict(warmup_steps=1000, milestones=[48000, 54000])
train_cfg = dict(max_iters=60000)
auto_scale_lr = dict(base_batch_size=128)
