"""Takes a module out of what ran it on several devices."""

from __future__ import annotations

import torch


def unwrapped(module: torch.nn.Module) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The module without DataParallel, which would look for the devices of its past.

    Returns:
        the module, and a note for the user if something was taken off.
    """
    count = 0
    while isinstance(module, torch.nn.DataParallel):
        module = module.module
        count += 1
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, torch.nn.DataParallel):
                parent._modules[name] = child.module
                count += 1
    return module, ("taken out of DataParallel",) if count else ()
