_base_ = ['./default_runtime.py']
visualizer = dict(type='mmseg_attn.DisparityVisualizer')
