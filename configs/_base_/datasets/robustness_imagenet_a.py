"""ImageNet-A: 7,500 natural adversarial images; only its 200 classes compete."""

test_dataloader = dict(dataset=dict(type='evamm.ImageNetA', data_root='data/imagenet-a'))
test_evaluator = dict(type='evamm.SubsetAccuracy', topk=(1, 5))
