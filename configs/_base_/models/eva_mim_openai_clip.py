"""EVA-01: the teacher is OpenAI's CLIP ViT-L/14, 768 numbers per patch."""

_base_ = './eva_mim.py'

model = dict(
    head=dict(weight_init='cut_normal'),
    teacher=dict(
        type='evamm.OpenCLIPTeacher',
        model='ViT-L-14-quickgelu',
        img_size=224,
        # Fetched when training starts; a path of OpenAI's or open_clip's file works as well.
        init_cfg=dict(type='Pretrained', checkpoint='open_clip::openai'),
    ),
)
