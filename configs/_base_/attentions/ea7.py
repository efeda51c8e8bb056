# Efficient attention in res3, res4 and on all five levels (P2 to P6).
# Whether the paper's modules stood behind the last block of a stage or before
# it, and how they started, is not known: here behind it, as the identity.
layer = dict(type='mmseg_attn.EfficientAttention', zero_init=True)
attentions = [dict(stage=2, layer=layer), dict(stage=3, layer=layer)]
levels = (0, 1, 2, 3, 4)
