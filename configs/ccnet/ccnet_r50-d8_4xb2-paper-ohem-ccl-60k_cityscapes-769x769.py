# The authors' recipe with OHEM and the category consistent loss.
_base_ = './ccnet_r50-d8_4xb2-paper-ccl-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        sampler=dict(
            type='mmseg_attn.OHEMPixelSampler', thresh=0.7, min_kept=100000
        )
    )
)
