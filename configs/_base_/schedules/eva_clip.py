"""What all official image-text runs share; a final config sets rates, layer decay and length.

LAMB with a learning rate for each tower and one for the temperature, weight decay 0.05, gradients
clipped to norm 5, 2000 steps of warm-up that begin with a 2000th of the rate, then a cosine to 0.
"""

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    clip_grad=dict(max_norm=5.0),
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    # lr is that of what is in neither tower: the temperature.
    optimizer=dict(type='evamm.LAMB', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(
        rule='classification',
        towers=dict(
            visual=dict(prefixes=['backbone.', 'head.'], lr=4e-4),
            text=dict(prefixes=['text.'], lr=4e-5, layer_decay_rate=0.75),
        ),
    ),
)
param_scheduler = dict(
    type='evamm.WarmupCosineLR', warmup=2000, eta_min=0.0, by_epoch=False, from_zero=False
)

train_cfg = dict(by_epoch=False)
val_cfg = dict()
test_cfg = dict()

# --auto-scale-lr compares base_batch_size with GPUs x pairs x accumulation. Parts that
# model.train_cfg.micro_batch_size makes of a batch do not count: the loss is that of all of it.
auto_scale_lr = dict(enable=False)
