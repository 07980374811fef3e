"""ImageNet-V2, matched frequency: 10,000 new images of the 1,000 classes.

A robustness base says which images and which metric; tools/test_robustness.py joins it with the
model and the test pipeline of any ImageNet-1K config. See docs/en/robustness.md.
"""

test_dataloader = dict(
    dataset=dict(type='evamm.ImageNetV2', data_root='data/imagenetv2-matched-frequency-format-val')
)
test_evaluator = dict(type='Accuracy', topk=(1, 5))
