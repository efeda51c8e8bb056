# Criss-cross attention, two loops, before the last block of res4, as the
# Non-local networks have theirs.
attentions = [
    dict(
        stage=3,
        before_last=True,
        recurrence=2,
        layer=dict(type='mmseg_attn.CrissCrossAttention'),
    )
]
