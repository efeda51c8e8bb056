# Copyright (c) mmseg_attn contributors.
"""What stands in for mmengine and mmcv where they are not installed.

Of each class the part that layers use, with the host's names of parameters and
the host's initialization: weights go from one to the other, and a seed gives
the same layer in both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError, near

# As mmcv abbreviates the name of a norm's class.
_ABBREVIATIONS = dict(batch='bn', group='gn', layer='ln', instance='in')


class Registry:
    """Classes by the names that configs give them.

    Args:
        kind: What the classes are, for messages.
        classes: The classes by their names.
    """

    def __init__(self, kind: str, **classes: type[nn.Module]):
        self.kind = kind
        self.classes = classes

    def register_module(self) -> Callable[[type], type]:
        """Make a decorator that adds a class under its own name."""

        def add(kind):
            self.classes[kind.__name__] = kind
            return kind

        return add

    def get(self, name: str | type[nn.Module]) -> type[nn.Module]:
        """Find a class.

        Args:
            name: Its name, or the class itself.

        Returns:
            The class.

        Raises:
            UserError: No class has the name.
        """
        if inspect.isclass(name):
            return name
        found = self.classes.get(str(name).removeprefix('mmseg_attn.'))
        if found is None:
            raise UserError(
                f'{self.kind} {name!r} is not known without mmcv and '
                f'mmengine.{near(str(name), self.classes)} Known are '
                f'{", ".join(self.classes)}; a class of your own may be given '
                'itself, and pip install "mmseg_attn[onedl]" brings the others'
            )
        return found

    def build(self, cfg: dict, *args: object, **options: object) -> nn.Module:
        """Build a module.

        Args:
            cfg: Its type, and keyword arguments.
            *args: More arguments of the class.
            **options: More keyword arguments.

        Returns:
            The module.
        """
        given = dict(cfg)
        return self.get(given.pop('type'))(*args, **options, **given)


MODELS = Registry('layer')
CONVS = Registry(
    'convolution',
    Conv1d=nn.Conv1d,
    Conv2d=nn.Conv2d,
    Conv3d=nn.Conv3d,
    Conv=nn.Conv2d,
)
NORMS = Registry(
    'norm',
    BN=nn.BatchNorm2d,
    BN1d=nn.BatchNorm1d,
    BN2d=nn.BatchNorm2d,
    BN3d=nn.BatchNorm3d,
    SyncBN=nn.SyncBatchNorm,
    GN=nn.GroupNorm,
    IN=nn.InstanceNorm2d,
)
ACTIVATIONS = Registry(
    'activation',
    ReLU=nn.ReLU,
    ReLU6=nn.ReLU6,
    LeakyReLU=nn.LeakyReLU,
    PReLU=nn.PReLU,
    ELU=nn.ELU,
    SiLU=nn.SiLU,
    Swish=nn.SiLU,
    GELU=nn.GELU,
    Sigmoid=nn.Sigmoid,
    Tanh=nn.Tanh,
)
build_activation_layer = ACTIVATIONS.build


class BaseModule(nn.Module):
    """A module that starts itself and its parts.

    Args:
        init_cfg: None. Others need mmengine, which reads them.

    Raises:
        UserError: Another was given.
    """

    def __init__(self, init_cfg: dict | list[dict] | None = None):
        super().__init__()
        if init_cfg:
            raise UserError(
                f'{type(self).__name__}: init_cfg={init_cfg!r} needs mmengine '
                '(pip install "mmseg_attn[onedl]"): leave it out, and change '
                "the layer's parameters by torch.nn.init"
            )
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Start the parts that have a way of their own."""
        for part in self.children():
            if hasattr(part, 'init_weights'):
                part.init_weights()


class Sequential(BaseModule, nn.Sequential):
    """Modules in a row.

    Args:
        *modules: The modules.
    """

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.extend(modules)


class Scale(nn.Module):
    """A learned factor.

    Args:
        scale: What it starts at.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: Numbers of any shape.

        Returns:
            The same shape.
        """
        return self.scale * x


class ConvModule(nn.Sequential):
    """A convolution with its norm and activation: ``conv``, ``bn``, ...

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel size of the convolution.
        padding: Padding of the convolution.
        conv_cfg: Kind of the convolution. None means ``Conv2d``.
        norm_cfg: Kind of the norm. None means none, and that the convolution
            has a bias.
        act_cfg: Kind of the activation. None means none.

    Raises:
        UserError: A type is not known.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        *,
        conv_cfg: dict | None,
        norm_cfg: dict | None,
        act_cfg: dict | None,
    ):
        super().__init__()
        self.conv = CONVS.build(
            conv_cfg or dict(type='Conv2d'),
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            bias=norm_cfg is None,
        )
        self.norm_name = None
        if norm_cfg:
            self.norm_name, norm = _norm(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        self.act_cfg = act_cfg
        if act_cfg:
            kind = ACTIVATIONS.get(act_cfg['type'])
            if 'inplace' in inspect.signature(kind).parameters:
                act_cfg = {'inplace': True, **act_cfg}
            self.activate = build_activation_layer(act_cfg)
        self.init_weights()

    def init_weights(self) -> None:
        """Start as mmcv's: Kaiming's normal distribution by the outputs."""
        if not hasattr(self.conv, 'init_weights'):
            start = dict(nonlinearity='relu')
            if self.act_cfg and self.act_cfg['type'] == 'LeakyReLU':
                slope = self.act_cfg.get('negative_slope', 0.01)
                start = dict(nonlinearity='leaky_relu', a=slope)
            nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', **start)
            if self.conv.bias is not None:
                nn.init.zeros_(self.conv.bias)
        if self.norm_name:
            norm = getattr(self, self.norm_name)
            if norm.weight is not None:
                nn.init.ones_(norm.weight)
                nn.init.zeros_(norm.bias)


def _norm(cfg, channels):
    """A norm and its name in a ConvModule."""
    cfg = {'eps': 1e-5, **cfg}
    learns = cfg.pop('requires_grad', True)
    kind = NORMS.get(cfg['type'])
    # Groups come first among the arguments of torch's group norm.
    width = 'num_channels' if kind is nn.GroupNorm else 'num_features'
    norm = NORMS.build(cfg, **{width: channels}).requires_grad_(learns)
    classes = ' '.join(c.__name__ for c in kind.__mro__).lower()
    short = (ab for word, ab in _ABBREVIATIONS.items() if word in classes)
    return getattr(kind, '_abbr_', next(short, 'norm_layer')), norm
