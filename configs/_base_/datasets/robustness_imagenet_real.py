"""ImageNet-ReaL: the 50,000 validation images with reassessed labels; 46,837 of them count."""

test_dataloader = dict(dataset=dict(type='ImageNet', data_root='data/imagenet', split='val'))
test_evaluator = dict(type='evamm.RealAccuracy', real_json='data/imagenet/real.json', topk=(1, 5))
