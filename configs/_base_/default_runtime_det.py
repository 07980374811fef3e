"""Runtime of detection and instance segmentation: counted in iterations, best by box AP."""

_base_ = './default_runtime_cls.py'

default_scope = 'mmdet'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=5000, save_best='coco/bbox_mAP', rule='greater'),
    visualization=dict(_delete_=True, type='DetVisualizationHook', draw=False),
)
# The heads run in float32. On a GPU their convolutions take TF32 by PyTorch's default; so did
# matrix products in the releases up to 1.11, such as the 1.9 of EVA-01's official detector.
env_cfg = dict(tf32=True)
log_processor = dict(by_epoch=False)
visualizer = dict(
    _delete_=True,
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

# Every process drops other residual branches and draws other sizes and samples.
randomness = dict(seed=0, diff_rank_seed=True)
