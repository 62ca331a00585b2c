"""The same vectors on a GPU as on the CPU: only where there is one; elsewhere the skip says so."""

import pytest
import torch

from indexer.building.plan import running
from indexer.gradients.at_checkpoints import ModelAtCheckpoints, Placement
from indexer.gradients.probe import probe
from indexer.methods.tracin import TracIn
from indexer.projection.rank1 import Rank1
from tests.reference import relative_error
from tests.zoo import ZOO

AGREE = 1e-4  # float32 sums in another order, without TensorFloat-32; no batch here is near a kink

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: parity with the CPU not checked")


@pytest.mark.parametrize("name", ZOO)
def test_vectors_and_norms_agree_with_the_cpu(name: str) -> None:
    subject = ZOO[name]
    module, batch = subject.make(), subject.batch(6)
    layout = probe(subject.make(), subject.loss, subject.batch(4))
    states = [
        {key: tensor.detach() for key, tensor in (*m.named_parameters(), *m.named_buffers())}
        for m in (module, subject.make())
    ]
    found = []
    for device in ("cpu", "cuda"):
        placement = Placement(torch.device(device))
        model = ModelAtCheckpoints(
            subject.make(), states, subject.loss, layout, dtype=torch.float32, placement=placement
        )
        method = TracIn(
            model, [dict.fromkeys(model.parameters, eta) for eta in (0.1, 0.2)], Rank1(layout, 16 * len(layout.blocks))
        )
        with running(None):
            rows, (queries, _) = method.train_rows(batch), method.query_vectors(batch)
        assert rows.self_influence is not None
        found.append([part.cpu() for part in (rows.vectors, rows.self_influence, queries)])
    for here, there in zip(*found, strict=True):
        assert relative_error(there, here) < AGREE
