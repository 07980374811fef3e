"""ImageNet-Sketch: 50,889 sketches of the 1,000 classes."""

test_dataloader = dict(dataset=dict(type='evamm.ImageNetSketch', data_root='data/sketch'))
test_evaluator = dict(type='Accuracy', topk=(1, 5))
