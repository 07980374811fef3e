"""Only the test pipeline at 224 pixels, for models that are used but not trained."""

_base_ = './imagenet_224.py'

train_dataloader = None
val_dataloader = None
val_evaluator = None
test_cfg = dict()
