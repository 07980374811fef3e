"""What all official pre-training runs share; a final config sets the numbers.

AdamW without layer decay; no weight decay for vectors, biases, position embedding and class token
(the mask token is decayed). One learning rate per optimizer step: warm-up from 0, then a cosine to
1e-5. Gradients are clipped to norm 3. No average of the weights.
"""

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    clip_grad=dict(max_norm=3.0),
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='classification', layer_decay_rate=1.0),
    optimizer=dict(type='AdamW', betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05),
)
param_scheduler = dict(
    type='evamm.WarmupCosineLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True
)

train_cfg = dict(by_epoch=True, val_interval=1)
# As in the official code, the teacher and the student run in half precision here too.
val_cfg = dict(fp16=True)
test_cfg = dict(fp16=True)

# --auto-scale-lr compares base_batch_size with GPUs x images x accumulation.
auto_scale_lr = dict(enable=False)
