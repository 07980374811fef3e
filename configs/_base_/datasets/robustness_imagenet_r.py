"""ImageNet-R: 30,000 renditions (art, toys, ...); only its 200 classes compete."""

test_dataloader = dict(dataset=dict(type='evamm.ImageNetR', data_root='data/imagenet-r'))
test_evaluator = dict(type='evamm.SubsetAccuracy', topk=(1, 5))
