# Non-local attention (mmcv's) where ea1 has efficient attention. Its memory
# grows with the square of the positions.
layer = dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian')
attentions = [dict(stage=3, layer=layer)]
