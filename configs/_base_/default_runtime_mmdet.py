_base_ = [
    __import__('mmdet').__path__[0] + '/.mim/configs/_base_/default_runtime.py'
]
