_base_ = ['./fcn_r18-small_1xb8-3k_camvid-240x320.py']
model = dict(
    decode_head=dict(
        type='mmseg_attn.ISAHead',
        isa_channels=32,  # half of the channels, as in the paper
        down_factor=(6, 6),  # near the fourth root of the map's cells
    )
)
