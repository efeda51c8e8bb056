_base_ = ['./ccnet-r2_r50-d8_1xb16-full-4k_camvid-360x480.py']
# The paper reduces the features before the category consistent loss, most
# likely to 16 channels; the width is an option.
model = dict(
    decode_head=dict(
        loss_ccl=dict(type='mmseg_attn.CategoryConsistentLoss'),
        ccl_channels=16,
    )
)
