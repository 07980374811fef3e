"""EVA-01-g, Cascade R-CNN on Objects365: the first part, at 1024 pixels.

Reproduces: the beginning of `eva_o365` of EVA-01/det/README.md.
Expected: no figure is published.
Hardware: 128 GPUs of 40 GB or more (official: 16 x 8, from the name of its output folder).
Command, on each of 16 machines of 8 GPUs: NNODES=16 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh \
    configs/eva_det/cascade_rcnn_eva_giant_p16_1024_128xb1_o365.py 8
Total batch: 128 GPUs x 1 image x 1 accumulation = 128.

The recipe is not published: the authors give the file and 380k iterations. The numbers are those of
a working config that stands in EVA-02/det/projects/ViTDet/configs/COCO,
`o365_cascade_mask_rcnn_vitdet_1B_attn_1024.py`. Our assumptions: 320k and 60k
iterations, and a frozen patch embedding as in the published configs that follow.
"""

_base_ = [
    '../_base_/models/cascade_rcnn_eva_objects365.py',
    '../_base_/datasets/objects365_1024.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    data_preprocessor=dict(pad_size=1024),
    backbone=dict(
        arch='eva-giant',
        img_size=1024,
        window_size=16,
        window_blocks=[i for i in range(40) if i % 4 != 3],
        relative_position=True,
        drop_path_rate=0.6,
        freeze_patch_embed=True,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_psz14to16.pt',
        ),
    ),
    neck=dict(in_channels=1408),
)

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = dict(warmup_steps=15000)
train_cfg = dict(max_iters=320000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
auto_scale_lr = dict(base_batch_size=128)
