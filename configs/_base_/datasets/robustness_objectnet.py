"""ObjectNet: 18,574 images of the categories that ImageNet-1K has too; all classes compete.

The red border of the images is kept, as in the official EVA evaluation.
"""

test_dataloader = dict(dataset=dict(type='evamm.ObjectNet', data_root='data/objectnet-1.0'))
test_evaluator = dict(type='Accuracy', topk=(1, 5))
