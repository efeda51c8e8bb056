# Copyright (c) mmseg_attn contributors.
"""Names of losses that mmengine would not add up."""


def check_loss_name(loss: str, loss_name: str) -> None:
    """Refuse a name with which a loss would be logged, but never minimised.

    Args:
        loss: Name of its class, for the message.
        loss_name: Its name in the log.

    Raises:
        ValueError: It does not begin with 'loss'.
    """
    if not isinstance(loss_name, str) or not loss_name.startswith('loss'):
        raise ValueError(
            f"{loss}: loss_name must begin with 'loss', else mmengine does "
            f'not add it to the total; got {loss_name!r}'
        )
