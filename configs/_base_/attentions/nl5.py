# Non-local attention (mmcv's) where ea5 has efficient attention. Its memory
# grows with the square of the positions.
layer = dict(type='NonLocal2d', reduction=2, mode='embedded_gaussian')
attentions = [dict(stage=2, layer=layer), dict(stage=3, layer=layer)]
levels = (2, 3, 4)
