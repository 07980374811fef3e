"""Only the test pipeline at 336 pixels, for models that are used but not trained."""

_base_ = './imagenet_336.py'

train_dataloader = None
val_dataloader = None
val_evaluator = None
test_cfg = dict()
