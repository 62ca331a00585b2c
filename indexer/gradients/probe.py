"""The probe: before any long run, a few examples are compared with a plain float64 loop of ``backward()``.

It refuses, naming the cause, what would give silently wrong per-example gradients: a loss that is not one number
an example, anything still random in ``eval()``, an output that depends on the rest of the batch.
"""

import torch
from torch import Tensor, nn

from indexer.errors import ProbeError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.general import by_loop
from indexer.gradients.layout import Layout
from indexer.gradients.trace import trace
from indexer.task import Loss

PROBE_ROWS = 4  # enough for a batch, a smaller batch and a pair; more finds nothing else
TOLERANCE = 1e-9  # relative, float64: rounding is 1e-13, a wrong batch axis or a missed call is 1e-3 and more


def probe(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]) -> Layout:
    """Return the layout of the module's gradient, after it was compared with the loop.

    The module holds the weights of a checkpoint; it is changed to float64 and ``eval()``.

    Raises:
        ProbeError: the gradients would be wrong, with the reason.
    """
    module = module.double().eval()
    doubled = tuple(part.double() if part.is_floating_point() else part for part in batch)
    batch = (doubled[0], doubled[1])
    if len(batch[0]) < 3:
        raise ProbeError(f"expected at least 3 training examples to probe the model with, found {len(batch[0])}")
    with torch.no_grad():
        _check_contract(module, loss, batch)
    layout = trace(module, loss, batch)
    _compare_with_loop(module, loss, batch, layout)
    return layout


def _check_contract(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]) -> None:
    inputs, targets = batch
    outputs = module(inputs)
    losses = loss(outputs, targets)
    if losses.shape != (len(inputs),):
        raise ProbeError(
            f"the loss must return one number an example, shape ({len(inputs)},), found shape {tuple(losses.shape)}; "
            "use reduction='none'"
        )
    if not torch.isfinite(losses).all():
        raise ProbeError("the loss of a probe example is NaN or infinite; check the checkpoint and the data")
    if not torch.equal(outputs, module(inputs)):
        raise ProbeError(
            "the model gives another output for the same input in eval() mode; something in it is still random: "
            "use nn.Dropout, or pass training=self.training to functional dropout"
        )
    pair = module(inputs[:2])
    if not torch.allclose(pair, outputs[:2], rtol=TOLERANCE, atol=TOLERANCE):
        raise ProbeError(f"the model's output for an example depends on the rest of the batch{_suspect(module)}")
    if not torch.allclose(loss(pair, targets[:2]), losses[:2], rtol=TOLERANCE, atol=TOLERANCE):
        raise ProbeError("the loss of an example depends on the rest of the batch; use reduction='none'")


def _suspect(module: nn.Module) -> str:
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._NormBase) and child.running_mean is None:
            return f": {name!r} normalises by the batch; build it with track_running_stats=True"
    return "; per-example influence is not defined for it"


def _compare_with_loop(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout) -> None:
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    found = ModelAtCheckpoints(module, [state], loss, layout, dtype=torch.float64).at(0, batch).gradients
    names = [name for block in layout.blocks for name in block.parameters]
    expected = by_loop(module, state, loss, batch, names)
    for block in layout.blocks:
        right = torch.cat(
            [expected[name].reshape(len(batch[0]), block.shape[0], -1) for name in block.parameters], dim=2
        )
        error = (found[block.name].dense() - right).norm() / right.norm().clamp_min(1e-30)
        if error > TOLERANCE and (found[block.name].dense() - right).norm() > 1e-12:
            raise ProbeError(
                f"the gradient of {block.name!r} by {block.path} ({block.note}) differs from a plain backward() by "
                f"{error:.1e} of its norm; Proponent cannot answer rightly for this model"
            )
