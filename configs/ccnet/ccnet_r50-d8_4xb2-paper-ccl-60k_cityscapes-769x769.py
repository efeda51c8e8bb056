# The authors' recipe with the category consistent loss. The paper reduces the
# features before it, most likely to 16 channels; the width is an option.
_base_ = './ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        loss_ccl=dict(
            type='mmseg_attn.CategoryConsistentLoss', align_corners=True
        ),
        ccl_channels=16,
    )
)
