"""COCO captions, Karpathy's test split: 5,000 images with 25,010 captions."""

test_dataloader = dict(
    dataset=dict(
        type='evamm.CaptionRetrieval',
        data_root='data/coco',
        ann_file='dataset_coco.json',
        # The file names the folder of each image: val2014.
        data_prefix='',
        split='test',
    )
)
test_evaluator = dict(type='evamm.RetrievalRecall', topk=(1, 5, 10))
