"""The masks that networks start with: functions with one signature, for one layer of one head.

`(weight [in, out], density, budget, generator) -> mask [in, out]`, bool. `budget` is the layer's
number of active connections, and `density` the share from which it follows. Random numbers come
from `generator` alone. For layers that are dense no function is called. A function of one's own is
named `module:function`. Masks of another run (`init_mask_from`) are `stored`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

InitialMask = Callable[[Tensor, float, int, torch.Generator], Tensor]

BY_WEIGHT = ("magnitude",)
"""First masks that go by the weights: where a limit on the inputs of neurons moves connections of
theirs, the largest weights come first; elsewhere the choice is random."""
