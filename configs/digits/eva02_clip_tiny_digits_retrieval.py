"""Retrieval with the pair of eva02_clip_tiny_digits.py: which caption, which scene?

500 scenes of digits never seen in training, three captions each in new sentences.
Expected: R@1 22 % image to text, 18 % text to image; R@10 71 % and 77 % (chance: 0.2 % and 2 %).
Nearly all scenes have two digits; digits, colours and order must all be right.
Command: python tools/test.py configs/digits/eva02_clip_tiny_digits_retrieval.py \
    work_dirs/eva02_clip_tiny_digits/iter_3600.pth
"""

_base_ = './eva02_clip_tiny_digits.py'

model = dict(test_cfg=dict(_delete_=True, type='retrieval'))

retrieval_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=40, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=40),
    dict(type='evamm.TokenizeText'),
    dict(type='evamm.PackPairInputs'),
]

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='evamm.CaptionRetrieval',
        data_root='data/digits/captions/test',
        ann_file='captions.json',
        data_prefix='images',
        split='test',
        pipeline=retrieval_pipeline,
    ),
)
test_evaluator = dict(_delete_=True, type='evamm.RetrievalRecall', topk=(1, 5, 10))
