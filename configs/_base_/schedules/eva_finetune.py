"""What all official ImageNet-1K fine-tuning runs share; a final config sets the numbers.

AdamW with layer-wise learning-rate decay, linear warm-up from 0 and a cosine to 0, one value per
optimizer step, no gradient clipping, an exponential moving average of the weights.
"""

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='classification'),
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
)
param_scheduler = dict(
    type='evamm.WarmupCosineLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True
)

train_cfg = dict(by_epoch=True, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Both the trained and the averaged weights are evaluated and saved.
custom_hooks = [
    dict(type='evamm.EMAHook', momentum=1e-4, evaluate_on_ema=True, evaluate_on_origin=True)
]

# --auto-scale-lr compares base_batch_size with GPUs x images x accumulation.
auto_scale_lr = dict(enable=False)
