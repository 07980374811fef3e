"""EVA-01-g, Cascade R-CNN on Objects365: the second part, at 1280 pixels.

Reproduces: the end of `eva_o365` of EVA-01/det/README.md.
Expected: no figure is published; the stage before COCO or LVIS.
Hardware: 128 GPUs of 40 GB or more (official: 16 x 8, from the name of its output folder).
Command, on each of 16 machines of 8 GPUs: NNODES=16 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva_det/cascade_rcnn_eva_giant_p16_1280_128xb1_o365.py 8
Total batch: 128 GPUs x 1 image x 1 accumulation = 128.

The recipe is not published: the authors give the file and 380k iterations. The numbers are those of
a working config that stands in EVA-02/det/projects/ViTDet/configs/COCO,
`o365_cascade_mask_rcnn_vitdet_1B_attn_1024to1280.py`. Our assumptions: 320k and 60k
iterations, and a frozen patch embedding as in the published configs that follow.
"""

_base_ = [
    '../_base_/models/cascade_rcnn_eva_objects365.py',
    '../_base_/datasets/objects365_1280.py',
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

load_from = 'work_dirs/cascade_rcnn_eva_giant_p16_1024_128xb1_o365/iter_320000.pth'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = dict(warmup_steps=5000, milestones=[45000])
train_cfg = dict(max_iters=60000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
auto_scale_lr = dict(base_batch_size=128)
