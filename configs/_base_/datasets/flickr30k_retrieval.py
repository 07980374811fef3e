"""Flickr30k, Karpathy's test split: 1,000 images with 5 captions each.

A retrieval base says which images and which metric; tools/test_zero_shot.py joins it with the
model and the test pipeline of an image-text config. See docs/en/zero_shot.md.
"""

test_dataloader = dict(
    dataset=dict(
        type='evamm.CaptionRetrieval',
        data_root='data/flickr30k',
        ann_file='dataset_flickr30k.json',
        data_prefix='flickr30k-images',
        split='test',
    )
)
test_evaluator = dict(type='evamm.RetrievalRecall', topk=(1, 5, 10))
