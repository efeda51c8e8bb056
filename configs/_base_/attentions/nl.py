# Non-local attention (mmcv's) where rcca has criss-cross attention.
layer = dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian')
attentions = [dict(stage=3, before_last=True, layer=layer)]
