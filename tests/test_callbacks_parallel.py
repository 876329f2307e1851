"""A training on two processes, watched on the first only: nobody waits for anybody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SCRIPT = """
import json, os, sys
import torch, torch.distributed as dist
from torch import nn
from gradscope.callbacks import Watch

def trained(rank, watched):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    net = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    torch.manual_seed(rank)
    x, y = torch.randn(32, 6), torch.arange(32) % 3
    watch = Watch(net, (x, y), every=2) if watched and rank == 0 else None
    losses = []
    for i in range(6):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        if watch and i % 2:
            watch.examine(i)  # gradients are there, and not used yet
        optimizer.step()
        losses.append(loss.item())
        if watch:
            watch.step()
    return losses, [float(p.detach().double().sum()) for p in net.parameters()]

rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
print(json.dumps([trained(rank, False), trained(rank, True)]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_training_on_two_processes_is_the_same(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script)]
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], cwd=ROOT,
                         stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for text in printed:
        plain, watched = json.loads(text)
        assert plain == watched
    assert json.loads(printed[0])[0][1] == json.loads(printed[1])[0][1]  # one model
