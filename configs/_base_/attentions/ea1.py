# Efficient attention in res4.
# Whether the paper's modules stood behind the last block of a stage or before
# it, and how they started, is not known: here behind it, as the identity.
layer = dict(type='mmseg_attn.EfficientAttention', zero_init=True)
attentions = [dict(stage=3, layer=layer)]
