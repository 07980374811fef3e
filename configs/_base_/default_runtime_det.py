"""Runtime of detection and instance segmentation: counted in iterations, best by box AP."""

_base_ = './default_runtime_cls.py'

default_scope = 'mmdet'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=5000, save_best='coco/bbox_mAP', rule='greater'),
    visualization=dict(_delete_=True, type='DetVisualizationHook', draw=False),
)
log_processor = dict(by_epoch=False)
visualizer = dict(
    _delete_=True,
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

# Every process drops other residual branches and draws other sizes and samples.
randomness = dict(seed=0, diff_rank_seed=True)
