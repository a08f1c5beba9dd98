"""For networks under test: end the process, as no handler can prevent, in a training step that the environment names."""

import os
import signal


def kill_if_asked() -> None:
    """Install a hook where ``HWQ_TEST_KILL_AT`` holds a number: it counts the forward passes of convolutions in training."""
    if "HWQ_TEST_KILL_AT" not in os.environ:
        return
    from torch import nn
    at, seen = int(os.environ["HWQ_TEST_KILL_AT"]), 0

    def count(module, inputs):
        nonlocal seen
        seen += module.training and (isinstance(module, nn.Conv2d) or type(module).__name__ == "Weighted" and module.is_conv)
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
    nn.modules.module.register_module_forward_pre_hook(count)
