# Interlaced sparse attention before the last block of res4. The paper's
# place, widths and start are not known: widths as in its head (half of the
# channels, 8 x 8 partition), added to the map with a number that starts at 0.
attentions = [
    dict(
        stage=3,
        before_last=True,
        residual=True,
        layer=dict(
            type='mmseg_attn.InterlacedSparseAttention',
            key_channels=256,
            value_channels=512,
            out_channels=1024,
            partition=(8, 8),
        ),
    )
]
