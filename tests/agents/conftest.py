"""Small networks: a second thread costs more than it brings, and much more beside another process."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
