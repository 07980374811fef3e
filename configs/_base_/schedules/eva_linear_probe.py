"""Official linear probing on ImageNet-1K; a final config sets the learning rate.

LARS without weight decay, 90 epochs, 10 of them warm-up from 0, then a cosine to 0.
"""

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='evamm.LARS', momentum=0.9, weight_decay=0.0, trust_coefficient=0.001),
)
param_scheduler = dict(
    type='evamm.WarmupCosineLR', warmup=10, eta_min=0.0, by_epoch=True, convert_to_iter_based=True
)

train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# --auto-scale-lr compares base_batch_size with GPUs x images x accumulation.
auto_scale_lr = dict(enable=False)
