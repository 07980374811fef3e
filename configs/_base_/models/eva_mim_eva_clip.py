"""EVA-02: the teacher is EVA-01-CLIP-g/14, 1,024 numbers per patch."""

_base_ = './eva_mim.py'

model = dict(
    # Official EVA-02 runs let a tenth of the gradient through to the patch projection.
    patch_grad_scale=0.1,
    head=dict(weight_init='xavier_normal'),
    teacher=dict(
        type='evamm.CLIPTeacher',
        arch='eva-clip-giant',
        embed_dims=1024,
        img_size=224,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_clip_psz14.pt',
        ),
    ),
)
