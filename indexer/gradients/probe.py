"""The probe: before any long run, a few examples are compared with a plain float64 loop of ``backward()``.

It refuses, naming the cause, what would give silently wrong per-example gradients: a loss that is not one number
an example, anything still random in ``eval()``, an output that depends on the rest of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from indexer.errors import ProbeError, TaskError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints, Vectors
from indexer.gradients.capture import State
from indexer.gradients.general import by_loop
from indexer.gradients.layout import Layout
from indexer.gradients.observe import TRIAL_ERRORS, every_output
from indexer.gradients.trace import trace
from indexer.task import Loss

PROBE_ROWS = 4  # enough for a batch, a smaller batch and a pair; more finds nothing else
ALIKE = 1e-3  # relative, float32: another order of summation errs by 1e-6, another meaning of a shape by its whole
TOLERANCE = 1e-9  # relative, float64: rounding is 1e-13, a wrong batch axis or a missed call is 1e-3 and more


def probe(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], chosen: Sequence[str] | None = None) -> Layout:
    """Return the layout of the module's gradient, after it was compared with the loop.

    The module holds the weights of a checkpoint; it is changed to float64 and ``eval()``. chosen: names of the
    parameters whose gradient is wanted; None: all that are trainable.

    Raises:
        ProbeError: the gradients would be wrong, with the reason.
    """
    module = module.double().eval()
    doubled = tuple(part.double() if part.is_floating_point() else part for part in batch)
    batch = (doubled[0], doubled[1])
    if len(batch[0]) < 3:
        raise ProbeError(f"expected at least 3 training examples to probe the model with, found {len(batch[0])}")
    with _refusing("in float64, in which they are probed"):
        with torch.no_grad():
            _check_contract(module, loss, batch)
        layout = trace(module, loss, batch, chosen)
        return _compare_with_loop(module, loss, batch, layout)


def check_runs(model: ModelAtCheckpoints, batch: tuple[Tensor, Tensor]) -> None:
    """Make sure that the model and its loss run in the dtype of the build, before anything long begins.

    Raises:
        ProbeError: they fail there.
    """
    with _refusing(f"in {model.dtype}, in which vectors are made".replace("torch.", "")):
        model.at(0, batch)


def runs_alike(model: ModelAtCheckpoints, plain: ModelAtCheckpoints, batch: tuple[Tensor, Tensor]) -> bool:
    """Whether a model with channels last runs (``view`` may refuse), and its losses are those of the plain one."""
    try:
        found = model.each(0, batch, lambda name, gradient: None).loss
    except (*TRIAL_ERRORS, TaskError):
        return False
    return torch.allclose(found, plain.forward(0, batch).detach(), rtol=ALIKE, atol=ALIKE)


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Turn what the user's own model or loss raises into a refusal that says where it was run.

    Raises:
        ProbeError: in its place.
    """
    try:
        yield
    except TRIAL_ERRORS as exc:
        first = f"{type(exc).__name__}: {exc}".split("\n", 1)[0]
        if "torch.utils.checkpoint" in first:
            raise ProbeError(
                "the model recomputes activations in its backward pass (torch.utils.checkpoint), where its calls "
                "cannot be followed; leave that out in eval() mode"
            ) from exc
        raise ProbeError(
            f"the model or its loss fails on the first training examples {where}: {first}. Let both follow the dtype "
            "of the model's parameters (for integer inputs: x.to(self.layer.weight.dtype)) and any size of batch"
        ) from exc


def _check_contract(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]) -> None:
    inputs, targets = batch
    outputs = _first_outputs(module, inputs)
    losses = loss(outputs, targets)
    if losses.shape != (len(inputs),):
        raise ProbeError(
            f"the loss must return one number an example, shape ({len(inputs)},), found shape {tuple(losses.shape)}; "
            "use reduction='none'; for losses by token see indexer.losses"
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


def _first_outputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run the model for the first time.

    Raises:
        ProbeError: it gives more than one tensor, or changes its input.
    """
    before = inputs.clone()
    outputs = module(inputs)
    if not isinstance(outputs, Tensor):
        raise ProbeError(f"the model must return one tensor, found {type(outputs).__name__}; wrap it in one that does")
    if not torch.equal(inputs, before):
        raise ProbeError("the model changes its input in place; let it clone its input first")
    return outputs


def _suspect(module: nn.Module) -> str:
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is None:
            return f": {name!r} normalises by the batch; build it with track_running_stats=True"
    return "; per-example influence is not defined for it"


def _compare_with_loop(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout) -> Layout:
    """Compare both ways of `ModelAtCheckpoints`; return the layout, told whether checkpoints can be stacked.

    At the checkpoint and at weights half as large, so that checkpoints which change places are seen as well; for the
    loss and for all outputs, since the loss of the first examples may be flat.
    """
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    trained = dict(module.named_parameters())
    states = [state, {name: tensor / 2 if name in trained else tensor for name, tensor in state.items()}]
    model = ModelAtCheckpoints(module, states, loss, layout, dtype=torch.float64)
    layout = replace(layout, sequential=_why_sequential(model, batch, layout))
    model = ModelAtCheckpoints(module, states, loss, layout, dtype=torch.float64)
    for goal in (loss, every_output):
        together, _ = model.at_all(batch, _concatenated(layout), {}, goal)
        for i, state in enumerate(states):
            right = _loop_blocks(module, state, goal, batch, layout)
            alone = {name: gradient.dense() for name, gradient in model.at(i, batch, goal).kept.items()}
            _refuse_difference(layout, alone, right)
            parts = torch.split(together[i], [block.size for block in layout.blocks], dim=1)
            stacked = {b.name: values.reshape(-1, *b.shape) for b, values in zip(layout.blocks, parts, strict=True)}
            _refuse_difference(layout, stacked, right)
    return layout


def _loop_blocks(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout
) -> dict[str, Tensor]:
    """Return the gradients of every block by the loop."""
    names = [name for block in layout.blocks for name in block.parameters]
    found = by_loop(module, state, loss, batch, names)
    return {
        block.name: torch.cat([found[name].reshape(len(batch[0]), block.shape[0], -1) for name in block.parameters], 2)
        for block in layout.blocks
    }


def _concatenated(layout: Layout) -> Vectors:
    return lambda gradients, _: torch.cat([gradients[b.name].dense().flatten(1) for b in layout.blocks], dim=1)


def _why_sequential(model: ModelAtCheckpoints, batch: tuple[Tensor, Tensor], layout: Layout) -> str | None:
    if layout.on("loop"):
        return "a block is on the loop path"
    try:
        model.at_all(batch, _concatenated(layout), {})
    except (*TRIAL_ERRORS, TaskError) as exc:
        return f"vmap over checkpoints: {str(exc).split(chr(10), 1)[0][:120]}"
    return None


def _refuse_difference(layout: Layout, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for block in layout.blocks:
        right = expected[block.name]
        difference = (found[block.name] - right).norm()
        error = difference / right.norm().clamp_min(1e-30)
        if not (error <= TOLERANCE or difference <= 1e-12):
            raise ProbeError(
                f"the gradient of {block.name!r} by {block.path} ({block.note}) differs from a plain backward() by "
                f"{error:.1e} of its norm; Proponent cannot answer rightly for this model"
            )
