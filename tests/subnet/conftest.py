from __future__ import annotations

import random
import zlib

import pytest
import torch


@pytest.fixture(autouse=True)
def seed(request):
    value = zlib.crc32(request.node.name.encode())
    random.seed(value)
    torch.manual_seed(value)
