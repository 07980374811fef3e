"""What all official detection runs share; a final config sets the numbers.

AdamW with layer-wise learning-rate decay of the trunk, pyramid and heads at the full rate, and
weight decay of everything, norms, biases and position embedding included. A linear warm-up from a
thousandth of the rate, then constant with drops to a tenth (`milestones`, in optimizer steps). No
gradient clipping.

Fewer images at a time: with optim_wrapper.accumulative_counts=N also train_cfg.max_iters,
train_cfg.val_interval and default_hooks.checkpoint.interval N times as large, which count
iterations; tools/analysis_tools/plan_run.py prints the command.
"""

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='detection'),
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
)
param_scheduler = dict(type='evamm.WarmupMultiStepLR', warmup_factor=0.001, by_epoch=False)

train_cfg = dict(by_epoch=False, val_interval=5000)
val_cfg = dict()
test_cfg = dict()

# --auto-scale-lr compares base_batch_size with GPUs x images x accumulation.
auto_scale_lr = dict(enable=False)
