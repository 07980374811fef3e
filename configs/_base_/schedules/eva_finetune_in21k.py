"""What the official ImageNet-21K intermediate fine-tuning runs share: no validation, no EMA."""

_base_ = './eva_finetune.py'

val_cfg = None
custom_hooks = []
